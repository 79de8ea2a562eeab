//! Follows the endpoints of a service by asking again before an answer is over.

use std::{future::ready, time::Duration};

use futures_util::{StreamExt, stream};
use hickory_resolver::proto::rr::Name;
use tower_mesh_core::{
    BoxError, Empties, Endpoint, Resolve, ResolveError, ServiceName, Update, Updates,
};

use crate::{
    dns::Dns,
    look_up::{Found, LookUp},
};

impl Resolve for Dns {
    fn resolve(&self, service: &ServiceName) -> Updates {
        let Some(records) = self.records_of(service) else {
            return constant(Ok(Update::Absent));
        };
        let name = match records.name_of(service) {
            Ok(name) => name,
            Err(error) => return constant(Err(cannot(service).caused_by(error))),
        };
        let following = Following {
            port: records.port(),
            dns: self.clone(),
            service: service.clone(),
            name,
            told: None,
            errors: 0,
            pause: Duration::ZERO,
        };
        Box::pin(stream::unfold(following, |mut following| async {
            let item = following.next().await;
            Some((item, following))
        }))
    }

    /// A server that was started anew, or lost its zone, says that names do not exist.
    fn empties(&self) -> Empties {
        Empties::Suspect
    }

    fn name(&self) -> &'static str {
        "dns"
    }
}

/// What will never change.
fn constant(item: Result<Update, ResolveError>) -> Updates {
    Box::pin(stream::once(ready(item)).chain(stream::pending()))
}

fn cannot(service: &ServiceName) -> ResolveError {
    ResolveError::new(format!("cannot look up {service}"))
}

/// One who follows a service.
struct Following {
    dns: Dns,
    service: ServiceName,
    name: Name,
    /// None if SRV records say it.
    port: Option<u16>,
    /// None before the first answer, and after an error: then an answer is news whatever it says.
    told: Option<Told>,
    errors: u32,
    pause: Duration,
}

/// None if there is no such name.
type Told = Option<Vec<Endpoint>>;

impl Following {
    async fn next(&mut self) -> Result<Update, ResolveError> {
        loop {
            if !self.pause.is_zero() {
                self.dns.clock.sleep(self.pause).await;
            }
            match self.look_up().await {
                Ok(found) => {
                    self.errors = 0;
                    self.pause = self.dns.bounds.refresh(found.ttl, &self.dns.rng);
                    if let Some(update) = self.news(found) {
                        return Ok(update);
                    }
                }
                Err(error) => {
                    self.errors = self.errors.saturating_add(1);
                    self.pause = self.dns.bounds.retry(self.errors, &self.dns.rng);
                    self.told = None;
                    return Err(cannot(&self.service).caused_by(error));
                }
            }
        }
    }

    async fn look_up(&self) -> Result<Found, BoxError> {
        let look_up = LookUp {
            servers: &self.dns.servers,
            clock: &self.dns.clock,
            family: self.dns.family,
            most: self.dns.max_endpoints,
        };
        match self.port {
            Some(port) => look_up.addresses(&self.name, port).await,
            None => look_up.srv(&self.name).await,
        }
    }

    fn news(&mut self, found: Found) -> Option<Update> {
        let (now, unusable) = match found.named {
            Some(named) => (Some(named.endpoints), named.unusable),
            None => (None, None),
        };
        if self.told.as_ref().is_some_and(|told| same(told, &now)) {
            return None;
        }
        if let Some(example) = unusable {
            tracing::warn!(service = %self.service, %example, "DNS names what is no endpoint");
        }
        self.told = Some(now.clone());
        Some(now.map_or(Update::Absent, Update::Replace))
    }
}

fn same(old: &Told, new: &Told) -> bool {
    let same = |(old, new): (&Endpoint, &Endpoint)| old == new && old.same_description(new);
    match (old, new) {
        (None, None) => true,
        (Some(old), Some(new)) => old.len() == new.len() && old.iter().zip(new).all(same),
        _ => false,
    }
}
