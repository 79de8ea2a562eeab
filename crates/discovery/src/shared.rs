//! What the handles and the driver share: which services are followed, and how each of them stands.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
};

use futures_util::task::AtomicWaker;
use tower_mesh_core::{Clock, Empties, Endpoints, Instant, Resolution, Resolve, Rng, ServiceName};

use crate::builder::Settings;

pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) resolve: Arc<dyn Resolve>,
    /// The source's word for itself; asked once, since it is the user's code.
    pub(crate) source: &'static str,
    pub(crate) empties: Empties,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    services: Mutex<Services>,
    /// Wakes the driver.
    waker: AtomicWaker,
}

#[derive(Default)]
struct Services {
    entries: HashMap<ServiceName, Arc<Entry>>,
    /// Those that the driver does not know of yet; all of them are in `entries`.
    new: Vec<Arc<Entry>>,
    closed: bool,
    /// Whether the last service that was asked for found no room; said once.
    full: bool,
}

/// A service that is followed.
pub(crate) struct Entry {
    pub(crate) endpoints: Endpoints,
    used: AtomicU64,
    refresh: AtomicBool,
    evicted: AtomicBool,
    /// Wakes the part of the driver that follows it.
    pub(crate) waker: AtomicWaker,
    report: Mutex<Report>,
}

/// What the driver says of a service, for the status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) answered: Option<Instant>,
    pub(crate) error: Option<Arc<str>>,
    /// Since when it has given nothing but errors.
    pub(crate) failing: Option<Instant>,
    pub(crate) suspect: bool,
    pub(crate) filtered: usize,
    pub(crate) dropped: usize,
}

/// Whether a service that was asked for is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    Yes,
    /// As many services are followed as may be, and all of them are held.
    Full,
    /// The driver is gone, or about to go.
    Closed,
}

impl Shared {
    pub(crate) fn new(
        settings: Settings,
        resolve: Arc<dyn Resolve>,
        clock: Clock,
        rng: Rng,
    ) -> Self {
        Self {
            source: resolve.name(),
            empties: resolve.empties(),
            settings,
            resolve,
            clock,
            rng,
            services: Mutex::default(),
            waker: AtomicWaker::new(),
        }
    }

    /// The endpoints of `service`; the driver begins to follow it, if it does not yet.
    pub(crate) fn follow(&self, service: &ServiceName) -> (Endpoints, Followed) {
        let now = self.clock.now();
        let mut services = self.lock();
        if let Some(entry) = services.entries.get(service) {
            entry.used.store(now.as_nanos(), Ordering::Relaxed);
            return (entry.endpoints.clone(), Followed::Yes);
        }
        if services.closed {
            drop(services);
            return (unknown(service), Followed::Closed);
        }
        let most = self.settings.max_services.get();
        let evicted = services.make_room(most);
        let room = services.entries.len() < most;
        let first_refused = !room && !std::mem::replace(&mut services.full, !room);
        let endpoints = room.then(|| services.insert(service, now));
        drop(services);
        for entry in evicted {
            entry.waker.wake();
        }
        if first_refused {
            tracing::error!(%service, max_services = most, "discovery follows no more services, all are in use");
        }
        match endpoints {
            Some(endpoints) => {
                self.waker.wake();
                (endpoints, Followed::Yes)
            }
            None => (unknown(service), Followed::Full),
        }
    }

    /// A service that is followed already.
    pub(crate) fn entry(&self, service: &ServiceName) -> Option<Arc<Entry>> {
        self.lock().entries.get(service).cloned()
    }

    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.lock().entries.values().cloned().collect()
    }

    /// The services to follow from now on, or nothing if it is time to stop.
    pub(crate) fn poll_new(&self, waker: &Waker) -> Option<Vec<Arc<Entry>>> {
        self.waker.register(waker);
        let mut services = self.lock();
        (!services.closed).then(|| std::mem::take(&mut services.new))
    }

    /// Forgets a service unless somebody holds it; whether it is forgotten.
    pub(crate) fn evict(&self, entry: &Arc<Entry>) -> bool {
        let mut services = self.lock();
        if !entry.is_held() {
            services.entries.remove(entry.endpoints.service());
            entry.evicted.store(true, Ordering::Relaxed);
        }
        entry.is_evicted()
    }

    /// Tells the driver to stop.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.waker.wake();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The driver has stopped: who still waits for a first answer waits no longer. What was known stays.
    pub(crate) fn stopped(&self) {
        let entries = {
            let mut services = self.lock();
            services.closed = true;
            services.new.clear();
            services.entries.values().cloned().collect::<Vec<_>>()
        };
        for Entry { endpoints, .. } in entries.iter().map(|entry| &**entry) {
            if endpoints.current().resolution() == Resolution::Pending {
                endpoints.publish(Resolution::Absent, Vec::new());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Services> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(service: &ServiceName) -> Endpoints {
    let endpoints = Endpoints::pending(service.clone());
    endpoints.publish(Resolution::Absent, Vec::new());
    endpoints
}

impl Services {
    fn insert(&mut self, service: &ServiceName, now: Instant) -> Endpoints {
        let entry = Arc::new(Entry::new(service.clone(), now));
        let endpoints = entry.endpoints.clone();
        self.entries.insert(service.clone(), Arc::clone(&entry));
        self.new.push(entry);
        self.full = false;
        endpoints
    }

    /// If there is no room for another service, evicts some that nobody holds: the unknown ones first, then those that
    /// were not asked for longest.
    ///
    /// A sixteenth at a time, so that a flood of names does not search all services for each.
    fn make_room(&mut self, most: usize) -> Vec<Arc<Entry>> {
        if self.entries.len() < most {
            return Vec::new();
        }
        let mut idle: Vec<_> = self.entries.values().filter(|e| !e.is_held()).collect();
        idle.sort_by_cached_key(|entry| {
            let found = entry.endpoints.current().resolution() == Resolution::Found;
            (found, entry.used())
        });
        idle.truncate((most / 16).max(1));
        let idle: Vec<_> = idle.into_iter().cloned().collect();
        for entry in &idle {
            entry.evicted.store(true, Ordering::Relaxed);
            self.entries.remove(entry.endpoints.service());
        }
        self.new.retain(|entry| !entry.is_evicted());
        idle
    }
}

impl Entry {
    fn new(service: ServiceName, now: Instant) -> Self {
        Self {
            endpoints: Endpoints::pending(service),
            used: AtomicU64::new(now.as_nanos()),
            refresh: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            report: Mutex::default(),
        }
    }

    pub(crate) fn service(&self) -> &ServiceName {
        self.endpoints.service()
    }

    /// How many hold the endpoints, this entry not counted.
    pub(crate) fn holders(&self) -> usize {
        self.endpoints.holders() - 1
    }

    pub(crate) fn is_held(&self) -> bool {
        self.holders() > 0
    }

    /// When it was last asked for.
    pub(crate) fn used(&self) -> Instant {
        Instant::from_nanos(self.used.load(Ordering::Relaxed))
    }

    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }

    pub(crate) fn refresh(&self) {
        self.refresh.store(true, Ordering::Relaxed);
        self.waker.wake();
    }

    pub(crate) fn take_refresh(&self) -> bool {
        self.refresh.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("source", &self.source)
            .field("settings", &self.settings)
            .field("services", &self.lock().entries.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("endpoints", &self.endpoints)
            .field("report", &*self.report())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;
    use crate::fixed::Static;

    fn shared(most: usize) -> Shared {
        let settings = Settings {
            max_services: most.try_into().expect("not zero"),
            ..Settings::default()
        };
        let resolve = Arc::new(Static::new());
        Shared::new(settings, resolve, Clock::manual().0, Rng::seeded(1))
    }

    fn name(i: usize) -> ServiceName {
        ServiceName::new(&format!("s-{i}")).expect("a name")
    }

    #[test]
    fn services_that_made_room_are_not_kept_for_a_driver_that_nobody_polls() {
        let shared = shared(10);
        for i in 0..1_000 {
            assert_eq!(shared.follow(&name(i)).1, Followed::Yes);
        }
        let services = shared.lock();
        assert!(services.entries.len() <= 10 && services.new.len() <= 10);
    }

    #[test]
    fn what_was_found_and_what_was_asked_for_lately_makes_room_last() {
        let shared = shared(32);
        let found = shared.follow(&name(0)).0;
        found.publish(Resolution::Found, Vec::new());
        drop(found);
        for i in 1..32 {
            shared.follow(&name(i));
        }
        // All were asked for at the same time; two of them go.
        shared.follow(&name(32));
        assert!(shared.entry(&name(0)).is_some());
        assert_eq!(shared.entries().len(), 31);
    }

    #[test]
    fn a_service_that_is_taken_again_meanwhile_is_not_evicted() {
        let shared = shared(10);
        let endpoints = shared.follow(&name(0)).0;
        let entry = shared.entry(&name(0)).unwrap();
        assert!(!shared.evict(&entry));
        drop(endpoints);
        assert!(shared.evict(&entry));
        assert!(shared.entry(&name(0)).is_none());
    }
}
