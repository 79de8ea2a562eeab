//! A stack of layers that is replaced as a whole when the settings change.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use tower_mesh_core::{Endpoint, NewService};

use crate::stack::{Balanced, Layers, Stack};

/// The newest stack over one kind of client, for all who call through it.
pub(crate) struct Stacks<S> {
    /// How many there have been; a call looks at no more than this.
    generation: AtomicU64,
    latest: Mutex<Latest<S>>,
}

struct Latest<S> {
    layers: Arc<Layers>,
    endpoints: Balanced<S>,
    stack: Stack<S>,
}

impl<S: Clone + Send + Sync + 'static> Stacks<S> {
    /// The first one, over the services that `connect` makes for endpoints.
    pub(crate) fn new<N>(layers: &Arc<Layers>, connect: N) -> Self
    where
        N: NewService<Endpoint, Service = S> + Send + Sync + 'static,
    {
        Self {
            generation: AtomicU64::new(0),
            latest: Mutex::new(Latest::new(layers, layers.balance(connect))),
        }
    }
}

impl<S> Stacks<S> {
    /// The number of the newest.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

impl<S: Clone> Stacks<S> {
    /// The newest, its number and its layers.
    pub(crate) fn latest(&self) -> (u64, Arc<Layers>, Stack<S>) {
        let latest = lock(&self.latest);
        let Latest { layers, stack, .. } = &*latest;
        (self.generation(), Arc::clone(layers), stack.clone())
    }
}

impl<S: Clone + Send + Sync + 'static> Latest<S> {
    fn new(layers: &Arc<Layers>, endpoints: Balanced<S>) -> Self {
        Self {
            stack: layers.over(endpoints.clone()),
            endpoints,
            layers: Arc::clone(layers),
        }
    }
}

/// What is told of other layers.
pub(crate) trait Renew: Send + Sync {
    /// Stacks the layers of now over the services that are there.
    fn renew(&self, layers: &ArcSwap<Layers>);
}

impl<S: Clone + Send + Sync + 'static> Renew for Stacks<S> {
    fn renew(&self, current: &ArcSwap<Layers>) {
        loop {
            let layers = current.load_full();
            let endpoints = lock(&self.latest).endpoints.clone();
            // Outside the lock, since it may make the service of an endpoint that is new.
            let endpoints = layers.balance_again(&endpoints);
            let new = Latest::new(&layers, endpoints);
            let old = {
                let mut latest = lock(&self.latest);
                self.generation.fetch_add(1, Ordering::Release);
                std::mem::replace(&mut *latest, new)
            };
            drop(old); // Outside the lock, too: what it drops may be a user's.
            // Whoever was faster with older layers looks again.
            if Arc::ptr_eq(&layers, &current.load()) {
                return;
            }
        }
    }
}

/// Nothing is left half-done under these locks.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
