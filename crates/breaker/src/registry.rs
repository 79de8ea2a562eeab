//! Many breakers under one policy, by key.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    num::NonZeroUsize,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tower_mesh_core::{Clock, Rng};

use crate::{
    breaker::Breaker, error::CountsOtherwise, phase::State, policy::Policy, settings::Settings,
    snapshot::Snapshot, transition::Transitions,
};

/// Breakers by key: one for each service, tenant or route.
///
/// It holds at most [`capacity`](Self::capacity) breakers. When it is full, those that have been idle for longest make
/// room, as long as they are closed and nobody holds them: then nothing is lost but counts. A breaker is found under a
/// lock that readers share; hold on to it or to its [layer](Breaker::layer) rather than look it up for each call.
///
/// # Clone
///
/// A clone is the same registry.
///
/// # Example
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_mesh_breaker::{CircuitBreakerRegistry, Policy};
///
/// # fn main() -> Result<(), tower_mesh_breaker::RegistryFull> {
/// let registry = CircuitBreakerRegistry::new(Policy::default());
/// let orders = ServiceBuilder::new()
///     .layer(registry.get_or_create("orders")?.layer())
///     .service_fn(|id: u32| async move { Ok::<_, std::io::Error>(id) });
/// assert_eq!(registry.snapshot()[0].name.as_ref(), "orders");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CircuitBreakerRegistry {
    settings: Arc<Settings>,
    capacity: NonZeroUsize,
    entries: Arc<RwLock<Entries>>,
}

type Entries = HashMap<Arc<str>, Breaker>;

const CAPACITY: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not zero");

/// A full registry makes room for this share of it at once, so that a flood of keys does not search it for each.
const ROOM: usize = 64;

impl CircuitBreakerRegistry {
    /// An empty registry whose breakers follow `policy`; it holds 10,000.
    pub fn new(policy: Policy) -> Self {
        Self {
            settings: Arc::new(Settings::new(policy)),
            capacity: CAPACITY,
            entries: Arc::default(),
        }
    }

    /// How many breakers it holds at most. It begins anew, empty.
    #[must_use]
    pub fn capacity(mut self, capacity: NonZeroUsize) -> Self {
        self.capacity = capacity;
        self.anew(|_| {})
    }

    /// Takes time from `clock`. It begins anew, empty.
    #[must_use]
    pub fn clock(self, clock: Clock) -> Self {
        self.anew(|settings| settings.clock = clock)
    }

    /// Takes chance from `rng`. It begins anew, empty.
    #[must_use]
    pub fn rng(self, rng: Rng) -> Self {
        self.anew(|settings| settings.rng = rng)
    }

    /// Has all its breakers follow `policy` from now on, as [`BreakerLayer::follow`](crate::BreakerLayer::follow).
    ///
    /// # Errors
    ///
    /// [`CountsOtherwise`] if they would have to count anew for that; nothing has changed then.
    pub fn follow(&self, policy: Policy) -> Result<(), CountsOtherwise> {
        self.settings.follow(policy)
    }

    fn anew(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.settings.apart();
        change(&mut settings);
        self.settings = Arc::new(settings);
        self.entries = Arc::default();
        self
    }

    /// The breaker of `key`, made if there is none.
    ///
    /// # Errors
    ///
    /// [`RegistryFull`] if there is none and no other can make room: all are held, or not closed.
    pub fn get_or_create(&self, key: &str) -> Result<Breaker, RegistryFull> {
        if let Some(breaker) = self.get(key) {
            return Ok(breaker);
        }
        let mut entries = self.write();
        if let Some(breaker) = entries.get(key) {
            return Ok(breaker.clone());
        }
        if entries.len() >= self.capacity.get() {
            self.make_room(&mut entries)?;
        }
        let key: Arc<str> = key.into();
        let breaker = Breaker::new(Arc::clone(&key), &self.settings);
        entries.insert(key, breaker.clone());
        Ok(breaker)
    }

    /// The breaker of `key`, if there is one.
    pub fn get(&self, key: &str) -> Option<Breaker> {
        let now = self.settings.clock.now();
        let breaker = self.read().get(key)?.clone();
        breaker.judge().touch(now);
        Some(breaker)
    }

    /// How many breakers there are.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What each breaker knows, in the order of their keys.
    pub fn snapshot(&self) -> Vec<Snapshot> {
        let mut snapshots: Vec<_> = self.breakers().iter().map(Breaker::snapshot).collect();
        snapshots.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        snapshots
    }

    /// Has each breaker [begin anew](Breaker::reset).
    pub fn reset_all(&self) {
        for breaker in self.breakers() {
            breaker.reset();
        }
    }

    /// The transitions of all its breakers from now on.
    pub fn transitions(&self) -> Transitions {
        self.settings.events.listen()
    }

    /// Outside the lock, since a reset tells of itself.
    fn breakers(&self) -> Vec<Breaker> {
        self.read().values().cloned().collect()
    }

    fn make_room(&self, entries: &mut Entries) -> Result<(), RegistryFull> {
        let mut idle: Vec<_> = entries
            .iter()
            .filter(|(_, breaker)| is_missed_by_nobody(breaker))
            .map(|(key, breaker)| (breaker.judge().last_use(), Arc::clone(key)))
            .collect();
        if idle.is_empty() {
            return Err(RegistryFull {
                capacity: self.capacity,
            });
        }
        let room = (self.capacity.get() / ROOM).clamp(1, idle.len());
        idle.select_nth_unstable(room - 1);
        for (_, key) in &idle[..room] {
            entries.remove(key);
        }
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Clones are made under the lock or from clones, so under the lock "nobody" stays nobody.
fn is_missed_by_nobody(breaker: &Breaker) -> bool {
    breaker.is_unheld() && breaker.state() == State::Closed
}

/// With the defaults of [`Policy`].
impl Default for CircuitBreakerRegistry {
    fn default() -> Self {
        Self::new(Policy::default())
    }
}

impl fmt::Debug for CircuitBreakerRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerRegistry")
            .field("policy", &**self.settings.policy.load())
            .field("capacity", &self.capacity)
            .field("breakers", &self.len())
            .finish()
    }
}

/// The registry holds as many breakers as it may, and each is in use or not closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryFull {
    capacity: NonZeroUsize,
}

impl RegistryFull {
    /// How many breakers it holds.
    pub const fn capacity(&self) -> NonZeroUsize {
        self.capacity
    }
}

impl fmt::Display for RegistryFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "all {} breakers of the registry are in use or not closed: give it a larger capacity or fewer keys",
            self.capacity
        )
    }
}

impl Error for RegistryFull {}
