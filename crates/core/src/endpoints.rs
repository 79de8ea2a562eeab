//! The endpoints of one service as they are now, shared by all who call it.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU8, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::{by_state::ByState, endpoint::Endpoint, name::ServiceName};

/// The live set of a service's endpoints: discovery publishes it, balancers read it.
///
/// # Clone
///
/// A clone is the same set. As long as one is held, discovery keeps it up to date.
#[derive(Clone)]
pub struct Endpoints(Arc<Hub>);

struct Hub {
    service: ServiceName,
    set: ArcSwap<EndpointSet>,
    subscribers: Mutex<Vec<Weak<dyn Subscriber>>>,
    revision: watch::Sender<u64>,
    /// The resolution as far as every subscriber knows it.
    announced: AtomicU8,
}

/// One state of a service's endpoints; never changed, only replaced.
#[derive(Clone, Debug)]
pub struct EndpointSet {
    revision: u64,
    resolution: Resolution,
    endpoints: Box<[Endpoint]>,
}

/// What the registry has said of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Resolution {
    /// Nothing yet.
    Pending,
    /// These are its endpoints; there may be none.
    Found,
    /// There is no such service.
    Absent,
}

/// Wants to know of each change of a set.
///
/// It may be called by several threads at once, and then sees revisions out of order: older ones must be ignored.
pub trait Subscriber: Send + Sync {
    /// The set is now `set`.
    fn changed(&self, set: &EndpointSet);
}

impl Endpoints {
    /// A set about which nothing is known yet.
    pub fn pending(service: ServiceName) -> Self {
        Self(Arc::new(Hub {
            service,
            set: ArcSwap::from_pointee(EndpointSet {
                revision: 0,
                resolution: Resolution::Pending,
                endpoints: Box::default(),
            }),
            subscribers: Mutex::default(),
            revision: watch::Sender::new(0),
            announced: AtomicU8::new(Resolution::Pending as u8),
        }))
    }

    /// A set that does not change unless [`publish`](Self::publish) is called: for tests, and for balancing without
    /// discovery.
    pub fn fixed(service: ServiceName, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let this = Self::pending(service);
        this.publish(Resolution::Found, endpoints.into_iter().collect());
        this
    }

    /// The service whose endpoints these are.
    pub fn service(&self) -> &ServiceName {
        &self.0.service
    }

    /// The set as it is now: one atomic load, no reference counted.
    pub fn current(&self) -> Guard<Arc<EndpointSet>> {
        self.0.set.load()
    }

    /// Replaces the set, drains what is no longer in it, and tells the subscribers.
    ///
    /// One writer: discovery's driver. Each endpoint comes once, and those that stay must have been given their old
    /// state ([`Endpoint::keeping`]). Returns when every subscriber knows, so that no call starts on a removed endpoint
    /// afterwards.
    pub fn publish(&self, resolution: Resolution, endpoints: Vec<Endpoint>) {
        let hub = &*self.0;
        let old = hub.set.load_full();
        let set = Arc::new(EndpointSet {
            revision: old.revision + 1,
            resolution,
            endpoints: endpoints.into(),
        });
        hub.set.store(Arc::clone(&set));
        for subscriber in hub.live_subscribers() {
            // It makes services, which is user code: a panic there keeps the news from nobody else.
            if catch_unwind(AssertUnwindSafe(|| subscriber.changed(&set))).is_err() {
                tracing::error!(service = %hub.service, "a subscriber to endpoints panicked");
            }
        }
        drain_removed(&old, &set);
        hub.announced.store(resolution as u8, Ordering::Release);
        hub.revision.send_replace(set.revision);
    }

    /// What the registry has said, once every subscriber knows it: one load.
    ///
    /// Whoever lets a call pass on this finds the balancer beneath up to date; [`current`](Self::current) may be ahead.
    pub fn resolution(&self) -> Resolution {
        match self.0.announced.load(Ordering::Acquire) {
            0 => Resolution::Pending,
            1 => Resolution::Found,
            _ => Resolution::Absent,
        }
    }

    /// Tells `subscriber` of the set as it is now and of each change from now on, until it is dropped.
    pub fn subscribe(&self, subscriber: &Arc<impl Subscriber + 'static>) {
        let weak: Weak<dyn Subscriber> = Arc::downgrade(subscriber) as Weak<dyn Subscriber>;
        // First listed, then told: a change in between is told twice rather than never.
        self.0.lock().push(weak);
        subscriber.changed(&self.current());
    }

    /// Waits until the registry has said something of the service, and every subscriber knows it.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when it is dropped.
    pub async fn resolved(&self) -> Resolution {
        let mut revision = self.0.revision.subscribe();
        loop {
            let resolution = self.resolution();
            if resolution != Resolution::Pending {
                return resolution;
            }
            if revision.changed().await.is_err() {
                return Resolution::Pending;
            }
        }
    }

    /// Waits for a revision newer than `seen` and gives it.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when it is dropped.
    pub async fn changed(&self, seen: u64) -> Arc<EndpointSet> {
        let mut revision = self.0.revision.subscribe();
        loop {
            let set = Guard::into_inner(self.current());
            if set.revision > seen || revision.changed().await.is_err() {
                return set;
            }
        }
    }

    /// How many hold this set, discovery included.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

/// After the swap: who picks from the old set meanwhile finds the gate shut and picks again.
fn drain_removed(old: &EndpointSet, new: &EndpointSet) {
    // What stays keeps its order and its state, so a walk side by side finds it, up to where both end alike; only what is
    // left over is looked up, by its state: ids and addresses of ten thousand take a millisecond to hash.
    let same = |a: &Endpoint, b: &Endpoint| Arc::ptr_eq(a.vitals(), b.vitals());
    let from_behind = old.endpoints.iter().rev().zip(new.endpoints.iter().rev());
    let tail = from_behind.take_while(|(a, b)| same(a, b)).count();
    let mut rest = new.endpoints[..new.endpoints.len() - tail]
        .iter()
        .peekable();
    let mut missing = Vec::new();
    for endpoint in &old.endpoints[..old.endpoints.len() - tail] {
        if rest.next_if(|next| same(next, endpoint)).is_none() {
            missing.push(endpoint);
        }
    }
    if missing.is_empty() {
        return;
    }
    let rest = ByState::new(rest);
    for endpoint in missing.iter().filter(|old| rest.find(old).is_none()) {
        endpoint.vitals().gate().set_draining(true);
    }
}

impl Hub {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<dyn Subscriber>>> {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Outside the lock, since a subscriber makes services, which is user code.
    fn live_subscribers(&self) -> Vec<Arc<dyn Subscriber>> {
        let mut subscribers = self.lock();
        subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        subscribers.iter().filter_map(Weak::upgrade).collect()
    }
}

impl EndpointSet {
    /// Counts the sets of this service; the first answer of the registry is 1.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What the registry has said.
    pub fn resolution(&self) -> Resolution {
        self.resolution
    }

    /// The endpoints, in discovery's order.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.current();
        f.debug_struct("Endpoints")
            .field("service", &self.0.service)
            .field("revision", &set.revision)
            .field("resolution", &set.resolution)
            .field("endpoints", &set.endpoints.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    fn name() -> ServiceName {
        ServiceName::new("orders").unwrap()
    }

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new(([127, 0, 0, 1], port).into())
    }

    /// Looks what is announced while it is told.
    struct Looks(Endpoints, Mutex<Vec<Resolution>>);

    impl Subscriber for Looks {
        fn changed(&self, _: &EndpointSet) {
            self.1.lock().unwrap().push(self.0.resolution());
        }
    }

    #[test]
    fn nothing_is_announced_before_every_subscriber_knows_it() {
        let endpoints = Endpoints::pending(name());
        let looks = Arc::new(Looks(endpoints.clone(), Mutex::default()));
        endpoints.subscribe(&looks);
        endpoints.publish(Resolution::Found, vec![]);
        assert_eq!(
            *looks.1.lock().unwrap(),
            [Resolution::Pending, Resolution::Pending]
        );
        assert_eq!(endpoints.resolution(), Resolution::Found);
    }

    struct Last(AtomicU64);

    impl Subscriber for Last {
        fn changed(&self, set: &EndpointSet) {
            self.0.fetch_max(set.revision(), Ordering::Relaxed);
        }
    }

    #[test]
    fn subscribers_learn_the_present_and_each_change_and_are_forgotten_when_dropped() {
        let endpoints = Endpoints::fixed(name(), [endpoint(1)]);
        let last = Arc::new(Last(AtomicU64::new(0)));
        endpoints.subscribe(&last);
        assert_eq!(last.0.load(Ordering::Relaxed), 1);
        endpoints.publish(Resolution::Found, vec![]);
        assert_eq!(last.0.load(Ordering::Relaxed), 2);
        drop(last);
        endpoints.publish(Resolution::Found, vec![]);
        assert!(endpoints.0.lock().is_empty());
    }

    #[test]
    fn what_is_removed_is_drained_and_what_stays_is_not() {
        let (stays, goes) = (endpoint(1), endpoint(2));
        let endpoints = Endpoints::fixed(name(), [stays.clone(), goes.clone()]);
        endpoints.publish(Resolution::Found, vec![stays.clone()]);
        assert!(stays.vitals().gate().is_open());
        assert!(!goes.vitals().gate().is_open());
    }

    #[test]
    fn what_stays_is_not_drained_whatever_the_order() {
        let all: Vec<_> = (1..=4).map(endpoint).collect();
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| all[i].clone());
        let endpoints = Endpoints::fixed(name(), [a.clone(), b.clone(), c.clone()]);
        endpoints.publish(Resolution::Found, vec![d.clone(), c.clone(), a.clone()]);
        let open = |e: &Endpoint| e.vitals().gate().is_open();
        assert_eq!(
            [&a, &b, &c, &d].map(open),
            [true, false, true, true],
            "only b has gone"
        );
    }

    struct Panics;

    impl Subscriber for Panics {
        fn changed(&self, set: &EndpointSet) {
            assert!(set.revision() < 2, "user code");
        }
    }

    #[test]
    fn a_subscriber_that_panics_keeps_the_news_from_nobody() {
        let gone = endpoint(1);
        let endpoints = Endpoints::fixed(name(), [gone.clone()]);
        let (panics, last) = (Arc::new(Panics), Arc::new(Last(AtomicU64::new(0))));
        endpoints.subscribe(&panics);
        endpoints.subscribe(&last);
        endpoints.publish(Resolution::Found, vec![]);
        assert_eq!(last.0.load(Ordering::Relaxed), 2);
        assert!(!gone.vitals().gate().is_open());
    }

    #[test]
    fn wherever_endpoints_come_and_go_exactly_those_that_went_are_drained() {
        let all: Vec<Endpoint> = (1..=9).map(endpoint).collect();
        let endpoints = Endpoints::fixed(name(), all.clone());
        for ports in [
            [1, 2, 3, 10, 5, 6, 7, 8, 9].as_slice(),
            &[1, 2, 3, 10, 5, 11, 6, 7, 8, 9],
            &[9, 3, 2, 10, 5, 11, 6, 7, 8],
            &[3, 9],
            &[],
            &[12],
        ] {
            let old = Guard::into_inner(endpoints.current());
            let keep = |port: &u16| {
                let new = endpoint(*port);
                match old.endpoints().iter().find(|old| **old == new) {
                    Some(old) => new.keeping(old),
                    None => new,
                }
            };
            endpoints.publish(Resolution::Found, ports.iter().map(keep).collect());
            for endpoint in old.endpoints() {
                let stays = ports.contains(&endpoint.address().port());
                assert_eq!(endpoint.vitals().gate().is_open(), stays, "{endpoint:?}");
            }
        }
    }

    #[tokio::test]
    async fn waiting_ends_with_the_first_answer() {
        let endpoints = Endpoints::pending(name());
        let waiting = tokio_test::task::spawn(endpoints.resolved());
        let mut waiting = waiting;
        assert!(waiting.poll().is_pending());
        endpoints.publish(Resolution::Absent, vec![]);
        assert!(waiting.is_woken());
        assert_eq!(waiting.await, Resolution::Absent);
        assert_eq!(endpoints.changed(0).await.revision(), 1);
    }
}
