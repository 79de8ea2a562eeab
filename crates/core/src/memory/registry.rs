//! A registry in this process.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    following::Following,
    instances::{Entered, Instances},
};
use crate::{
    endpoint::{Endpoint, Health},
    name::ServiceName,
    register::{BoxFuture, Instance, Register, RegisterError, Registered, Registration},
    resolve::{Empties, Resolve, Updates},
    time::Clock,
};

/// A registry in this process: what is registered here is found here, at once.
///
/// - An instance with a TTL whose heartbeat does not come is [`Critical`](Health::Critical) until one comes; it stays
///   in the registry. Heartbeats that change nothing wake nobody.
/// - Registering an instance again, by its id, replaces it: the older [`Registration`] then moves nothing any more.
/// - A service that nobody has registered is `Absent`; one without instances left is empty. Both are authoritative.
/// - It takes 10,000 services and 100,000 instances of each, and refuses more. Services without instances are forgotten
///   to make room.
///
/// # Clone
///
/// A clone is the same registry.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_mesh_core::{Endpoint, Health, Instance, MemoryRegistry, Register, ServiceName};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = MemoryRegistry::new();
/// let here = Endpoint::new(([127, 0, 0, 1], 8080).into());
/// let instance = Instance::new(ServiceName::new("orders")?, here).with_ttl(Duration::from_secs(10));
///
/// let registration = registry.register(instance).await?;
/// registration.heartbeat(Health::Passing).await?; // now and then, while it serves
/// registration.deregister().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryRegistry(Arc<Shared>);

pub(super) struct Shared {
    pub(super) clock: Clock,
    instances: Mutex<Instances>,
}

impl MemoryRegistry {
    /// An empty registry on tokio's clock.
    pub fn new() -> Self {
        Self::with_clock(Clock::default())
    }

    /// An empty registry that measures TTLs with `clock`.
    pub fn with_clock(clock: Clock) -> Self {
        Self(Arc::new(Shared {
            clock,
            instances: Mutex::default(),
        }))
    }

    /// Makes `endpoints` all the instances that `service` has, without registrations and TTLs: for tests, and for what
    /// is known beforehand. Of two with the same id the last counts.
    pub fn set(&self, service: &ServiceName, endpoints: impl IntoIterator<Item = Endpoint>) {
        let endpoints = endpoints.into_iter().collect();
        let old = self.0.lock().set(service, endpoints);
        self.0.wake(service);
        drop(old);
    }

    /// Forgets `service`, as if nobody had ever registered it.
    pub fn forget(&self, service: &ServiceName) {
        let old = self.0.lock().forget(service);
        self.0.wake(service);
        drop(old);
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Instances> {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, service: &ServiceName) {
        let changes = self.lock().changes(service);
        if let Some(changes) = changes {
            changes.send_replace(()); // Outside the lock: a waker is anybody's code.
        }
    }
}

impl Resolve for MemoryRegistry {
    fn resolve(&self, service: &ServiceName) -> Updates {
        Following::start(Arc::clone(&self.0), service.clone())
    }

    fn empties(&self) -> Empties {
        Empties::Authoritative
    }

    fn name(&self) -> &'static str {
        "memory"
    }
}

impl Register for MemoryRegistry {
    fn register(&self, instance: Instance) -> BoxFuture<'_, Result<Registration, RegisterError>> {
        Box::pin(async move {
            let shared = Arc::clone(&self.0);
            let now = shared.clock.now();
            let (entered, old) = shared.lock().enter(&instance, now)?;
            shared.wake(instance.service());
            drop(old);
            Ok(Registration::new(instance, Member { shared, entered }))
        })
    }
}

/// What the registry keeps of an instance that was registered.
struct Member {
    shared: Arc<Shared>,
    entered: Entered,
}

impl Registered for Member {
    fn heartbeat(&self, health: Health) -> BoxFuture<'_, Result<(), RegisterError>> {
        Box::pin(async move {
            let now = self.shared.clock.now();
            let changes = self.shared.lock().beat(&self.entered, health, now)?;
            if changes {
                self.shared.wake(self.entered.service());
            }
            Ok(())
        })
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), RegisterError>> {
        Box::pin(async move {
            self.abandon();
            Ok(())
        })
    }

    fn abandon(&self) {
        let left = self.shared.lock().leave(&self.entered);
        if left.is_some() {
            self.shared.wake(self.entered.service());
        }
    }
}

impl Default for MemoryRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRegistry").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{task::Poll, time::Duration};

    use futures_core::Stream;
    use tokio_test::{assert_pending, task};

    use super::*;
    use crate::{resolve::Update, time::ManualClock};

    const SECOND: Duration = Duration::from_secs(1);

    fn registry() -> (MemoryRegistry, ManualClock) {
        let (clock, handle) = Clock::manual();
        (MemoryRegistry::with_clock(clock), handle)
    }

    fn orders() -> ServiceName {
        ServiceName::new("orders").unwrap()
    }

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new(([127, 0, 0, 1], port).into())
    }

    fn instance(port: u16) -> Instance {
        Instance::new(orders(), endpoint(port))
    }

    fn done<T>(future: impl Future<Output = T>) -> T {
        match task::spawn(future).poll() {
            Poll::Ready(out) => out,
            Poll::Pending => panic!("nothing in memory waits"),
        }
    }

    type Following = task::Spawn<Updates>;

    fn follow(registry: &MemoryRegistry) -> Following {
        task::spawn(registry.resolve(&orders()))
    }

    fn next(updates: &mut Following) -> Vec<(u16, Health)> {
        match updates.enter(|cx, updates| updates.poll_next(cx)) {
            Poll::Ready(Some(Ok(Update::Replace(endpoints)))) => {
                let told = endpoints.iter().map(|e| (e.address().port(), e.health()));
                told.collect()
            }
            other => panic!("expected all endpoints, found {other:?}"),
        }
    }

    fn nothing(updates: &mut Following) {
        assert_pending!(updates.enter(|cx, updates| updates.poll_next(cx)));
    }

    #[test]
    fn what_is_registered_is_found_and_what_is_deregistered_is_not() {
        let (registry, _) = registry();
        let mut updates = follow(&registry);
        let absent = updates.enter(|cx, updates| updates.poll_next(cx));
        assert!(matches!(absent, Poll::Ready(Some(Ok(Update::Absent)))));
        nothing(&mut updates);
        let one = done(registry.register(instance(1))).unwrap();
        assert!(updates.is_woken());
        assert_eq!(next(&mut updates), [(1, Health::Passing)]);
        let two = done(registry.clone().register(instance(2))).unwrap();
        assert_eq!(next(&mut updates).len(), 2);
        nothing(&mut updates);
        done(one.deregister()).unwrap();
        assert!(updates.is_woken());
        assert_eq!(next(&mut updates), [(2, Health::Passing)]);
        nothing(&mut updates);
        drop(two);
        assert!(updates.is_woken());
        assert_eq!(next(&mut updates), []);
        nothing(&mut updates);
        assert_eq!(next(&mut follow(&registry)), [], "it did exist");
    }

    #[test]
    fn a_missed_heartbeat_makes_an_instance_critical_and_the_next_one_brings_it_back() {
        let (registry, clock) = registry();
        let registration = done(registry.register(instance(1).with_ttl(10 * SECOND))).unwrap();
        let mut updates = follow(&registry);
        assert_eq!(next(&mut updates), [(1, Health::Passing)]);
        nothing(&mut updates);
        clock.advance(10 * SECOND - Duration::from_nanos(1));
        assert!(!updates.is_woken());
        clock.advance(Duration::from_nanos(1));
        assert!(updates.is_woken());
        assert_eq!(next(&mut updates), [(1, Health::Critical)]);
        nothing(&mut updates);
        assert_eq!(clock.timers(), 0, "there is nothing more to wait for");
        done(registration.heartbeat(Health::Passing)).unwrap();
        assert!(updates.is_woken());
        assert_eq!(next(&mut updates), [(1, Health::Passing)]);
    }

    #[test]
    fn heartbeats_that_change_nothing_wake_nobody() {
        let (registry, clock) = registry();
        let registration = done(registry.register(instance(1).with_ttl(10 * SECOND))).unwrap();
        let mut updates = follow(&registry);
        next(&mut updates);
        nothing(&mut updates);
        for _ in 0..3 {
            clock.advance(3 * SECOND);
            done(registration.heartbeat(Health::Passing)).unwrap();
            assert!(!updates.is_woken());
        }
        // Its timer stands where the first heartbeat was due; it finds that it has come.
        clock.advance(SECOND);
        nothing(&mut updates);
        done(registration.heartbeat(Health::Critical)).unwrap();
        assert_eq!(next(&mut updates), [(1, Health::Critical)]);
    }

    #[test]
    fn registering_again_replaces_and_the_older_guard_moves_nothing() {
        let (registry, _) = registry();
        let older = done(registry.register(instance(1).with_ttl(SECOND))).unwrap();
        let anew = Instance::new(orders(), endpoint(2).with_id("127.0.0.1:1"));
        let _newer = done(registry.register(anew)).unwrap();
        let error = done(older.heartbeat(Health::Critical)).unwrap_err();
        assert!(error.to_string().contains("register it again"), "{error}");
        drop(older);
        assert_eq!(next(&mut follow(&registry)), [(2, Health::Passing)]);
    }

    #[test]
    fn what_is_set_directly_is_told_once_and_what_is_forgotten_is_absent() {
        let (registry, _) = registry();
        registry.set(&orders(), [endpoint(1), endpoint(2)]);
        let mut updates = follow(&registry);
        assert_eq!(next(&mut updates).len(), 2);
        nothing(&mut updates);
        registry.set(&orders(), [endpoint(2), endpoint(1), endpoint(1)]);
        assert!(updates.is_woken());
        nothing(&mut updates);
        registry.forget(&orders());
        let absent = updates.enter(|cx, updates| updates.poll_next(cx));
        assert!(matches!(absent, Poll::Ready(Some(Ok(Update::Absent)))));
    }

    #[test]
    fn a_follower_that_goes_leaves_no_timer() {
        let (registry, clock) = registry();
        let _registration = done(registry.register(instance(1).with_ttl(SECOND))).unwrap();
        let mut updates = follow(&registry);
        next(&mut updates);
        nothing(&mut updates);
        assert_eq!(clock.timers(), 1);
        drop(updates);
        assert_eq!(clock.timers(), 0);
    }
}
