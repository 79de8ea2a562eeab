//! What a registry in memory knows: services, their instances, and until when each is believed.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    endpoint::{Endpoint, Health},
    name::ServiceName,
    register::{Instance, RegisterError},
    time::Instant,
};

const MAX_SERVICES: usize = 10_000;
const MAX_INSTANCES: usize = 100_000;

/// The services and their instances. Pure: it is told the time, and wakes nobody by itself.
///
/// What is removed is handed back, to be dropped outside the lock: with an endpoint go its judges, anybody's code.
#[derive(Default)]
pub(super) struct Instances {
    services: HashMap<ServiceName, Service>,
    /// Tells registrations of the same id apart.
    registrations: u64,
}

#[derive(Default)]
struct Service {
    /// Whether it was ever registered; one that was not is kept for its followers only.
    known: bool,
    instances: Entries,
    followers: usize,
    changes: watch::Sender<()>,
}

pub(super) type Entries = BTreeMap<Box<str>, Entry>;

pub(super) struct Entry {
    registration: u64,
    endpoint: Endpoint,
    ttl: Option<Duration>,
    expires: Instant,
}

/// One registration of an instance; a later one of the same id is another.
pub(super) struct Entered {
    service: ServiceName,
    id: Box<str>,
    registration: u64,
}

impl Entered {
    pub(super) fn service(&self) -> &ServiceName {
        &self.service
    }
}

/// What is known of a service.
pub(super) enum Seen {
    Absent,
    These(Vec<Endpoint>),
}

impl Instances {
    pub(super) fn enter(
        &mut self,
        instance: &Instance,
        now: Instant,
    ) -> Result<(Entered, Option<Entry>), RegisterError> {
        if instance.ttl() == Some(Duration::ZERO) {
            return Err(RegisterError::new(
                "a ttl of zero has passed at once: leave it out, or make it longer than the time between heartbeats",
            ));
        }
        let entered = Entered {
            service: instance.service().clone(),
            id: instance.endpoint().id().into(),
            registration: self.registrations + 1,
        };
        self.make_room(&entered)?;
        self.registrations = entered.registration;
        let entry = Entry {
            registration: entered.registration,
            endpoint: instance.endpoint().clone(),
            ttl: instance.ttl(),
            expires: expiry(now, instance.ttl()),
        };
        let service = self.services.entry(entered.service.clone()).or_default();
        service.known = true;
        let old = service.instances.insert(entered.id.clone(), entry);
        Ok((entered, old))
    }

    /// Notes a sign of life; whether it changes what is known of the instance.
    pub(super) fn beat(
        &mut self,
        entered: &Entered,
        health: Health,
        now: Instant,
    ) -> Result<bool, RegisterError> {
        let Some(entry) = self.entry(entered) else {
            let Entered { service, id, .. } = entered;
            return Err(RegisterError::new(format!(
                "{id} of {service} is no longer registered, or has been registered anew: register it again"
            )));
        };
        let changes = now >= entry.expires || entry.endpoint.health() != health;
        entry.expires = expiry(now, entry.ttl);
        if changes {
            entry.endpoint = entry.endpoint.clone().with_health(health);
        }
        Ok(changes)
    }

    pub(super) fn leave(&mut self, entered: &Entered) -> Option<Entry> {
        self.entry(entered)?;
        let service = self.services.get_mut(&entered.service)?;
        service.instances.remove(&entered.id)
    }

    fn entry(&mut self, entered: &Entered) -> Option<&mut Entry> {
        let service = self.services.get_mut(&entered.service)?;
        let entry = service.instances.get_mut(&entered.id)?;
        (entry.registration == entered.registration).then_some(entry)
    }

    /// Makes `endpoints` all the instances of `service`.
    pub(super) fn set(&mut self, service: &ServiceName, endpoints: Vec<Endpoint>) -> Entries {
        self.registrations += 1;
        let new = endpoints.into_iter().map(|endpoint| {
            let entry = Entry {
                registration: self.registrations,
                endpoint,
                ttl: None,
                expires: Instant::NEVER,
            };
            (entry.endpoint.id().into(), entry)
        });
        let service = self.services.entry(service.clone()).or_default();
        service.known = true;
        std::mem::replace(&mut service.instances, new.collect())
    }

    pub(super) fn forget(&mut self, service: &ServiceName) -> Option<Entries> {
        let forgotten = self.services.get_mut(service)?;
        forgotten.known = false;
        let entries = std::mem::take(&mut forgotten.instances);
        self.tidy(service);
        Some(entries)
    }

    /// What is known of `service`, and until when if nothing happens.
    pub(super) fn look(&self, service: &ServiceName, now: Instant) -> (Seen, Option<Instant>) {
        let Some(service) = self.services.get(service).filter(|s| s.known) else {
            return (Seen::Absent, None);
        };
        let mut until = Instant::NEVER;
        let seen = service.instances.values().map(|entry| {
            let endpoint = entry.endpoint.clone();
            if now >= entry.expires {
                return endpoint.with_health(Health::Critical);
            }
            until = until.min(entry.expires);
            endpoint
        });
        let seen = Seen::These(seen.collect());
        (seen, (until != Instant::NEVER).then_some(until))
    }

    /// What to wake with when something about `service` has changed.
    pub(super) fn changes(&self, service: &ServiceName) -> Option<watch::Sender<()>> {
        Some(self.services.get(service)?.changes.clone())
    }

    pub(super) fn follow(&mut self, service: &ServiceName) -> watch::Receiver<()> {
        let service = self.services.entry(service.clone()).or_default();
        service.followers += 1;
        service.changes.subscribe()
    }

    pub(super) fn unfollow(&mut self, service: &ServiceName) {
        if let Some(followed) = self.services.get_mut(service) {
            followed.followers -= 1;
        }
        self.tidy(service);
    }

    /// A name that nobody has registered is kept for its followers only, or names out of requests would pile up.
    fn tidy(&mut self, name: &ServiceName) {
        let unused = |service: &Service| !service.known && service.followers == 0;
        if self.services.get(name).is_some_and(unused) {
            self.services.remove(name);
        }
    }

    /// Makes sure that an instance may be entered, by forgetting a service without instances if need be.
    fn make_room(&mut self, Entered { service, id, .. }: &Entered) -> Result<(), RegisterError> {
        if let Some(known) = self.services.get(service).filter(|s| s.known) {
            if known.instances.len() < MAX_INSTANCES || known.instances.contains_key(id) {
                return Ok(());
            }
            return Err(RegisterError::new(format!(
                "{service} has {MAX_INSTANCES} instances: deregister some first"
            )));
        }
        if self.services.values().filter(|s| s.known).count() < MAX_SERVICES {
            return Ok(());
        }
        let empty = |s: &Service| s.known && s.instances.is_empty() && s.followers == 0;
        let spare = self.services.iter().find(|(_, s)| empty(s));
        let Some(spare) = spare.map(|(name, _)| name.clone()) else {
            return Err(RegisterError::new(format!(
                "the registry holds {MAX_SERVICES} services: deregister others before {service}"
            )));
        };
        self.services.remove(&spare);
        Ok(())
    }
}

fn expiry(now: Instant, ttl: Option<Duration>) -> Instant {
    ttl.map_or(Instant::NEVER, |ttl| now + ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1 << 60);

    fn name(name: impl std::fmt::Display) -> ServiceName {
        ServiceName::new(&name.to_string()).unwrap()
    }

    fn instance(service: &ServiceName, id: usize) -> Instance {
        let endpoint = Endpoint::new(([127, 0, 0, 1], 80).into()).with_id(&id.to_string());
        Instance::new(service.clone(), endpoint)
    }

    #[test]
    fn a_full_registry_refuses_new_services_and_forgets_empty_ones_first() {
        let mut instances = Instances::default();
        let mut entered = Vec::new();
        for i in 0..MAX_SERVICES {
            entered.push(instances.enter(&instance(&name(i), 0), NOW).unwrap().0);
        }
        let another = instance(&name("another"), 0);
        let error = instances.enter(&another, NOW).map(drop).unwrap_err();
        assert!(error.to_string().contains("10000 services"), "{error}");
        assert!(
            instances.enter(&instance(&name(7), 1), NOW).is_ok(),
            "an old one"
        );
        instances.leave(&entered[3]);
        assert!(instances.enter(&another, NOW).is_ok());
        assert!(matches!(instances.look(&name(3), NOW).0, Seen::Absent));
    }

    #[test]
    fn a_full_service_takes_only_what_replaces() {
        let mut instances = Instances::default();
        let orders = name("orders");
        let all = (0..MAX_INSTANCES).map(|id| instance(&orders, id).endpoint().clone());
        instances.set(&orders, all.collect());
        assert!(
            instances
                .enter(&instance(&orders, MAX_INSTANCES), NOW)
                .is_err()
        );
        assert!(instances.enter(&instance(&orders, 5), NOW).is_ok());
    }

    #[test]
    fn names_that_are_only_asked_for_leave_nothing_behind() {
        let mut instances = Instances::default();
        for i in 0..100 {
            instances.follow(&name(i));
        }
        instances.follow(&name(0));
        (0..100).for_each(|i| instances.unfollow(&name(i)));
        assert_eq!(instances.services.len(), 1);
        instances.unfollow(&name(0));
        assert!(instances.services.is_empty());
    }

    #[test]
    fn times_that_overflow_are_for_ever() {
        let mut instances = Instances::default();
        let eternal = instance(&name("orders"), 0).with_ttl(Duration::MAX);
        instances.enter(&eternal, NOW).unwrap();
        assert_eq!(instances.look(&name("orders"), NOW).1, None);
        assert!(
            instances
                .enter(&eternal.with_ttl(Duration::ZERO), NOW)
                .is_err()
        );
    }
}
