//! How many requests agents hold for us at a time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Places at an agent, which all who follow something share.
///
/// An agent of Consul's defaults closes the 201st connection of an address. Those who follow something keep one each, for
/// as long as nothing changes; so they take turns, and leave room for everything else.
#[derive(Clone)]
pub(crate) struct Places(Arc<Shared>);

struct Shared {
    free: Semaphore,
    all: usize,
    following: AtomicUsize,
}

/// Somebody who follows something, until it is dropped.
pub(crate) struct Follower(Places);

impl Places {
    pub(crate) fn new(all: usize) -> Self {
        Self(Arc::new(Shared {
            free: Semaphore::new(all),
            all,
            following: AtomicUsize::new(0),
        }))
    }

    pub(crate) fn follower(&self) -> Follower {
        self.0.following.fetch_add(1, Ordering::Relaxed);
        Follower(self.clone())
    }
}

impl Follower {
    /// Waits for a place; who has waited longest is next.
    pub(crate) async fn place(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.0.0.free.acquire().await.ok()
    }

    /// How many follow something, and how many places they share.
    pub(crate) fn crowd(&self) -> (usize, usize) {
        let shared = &self.0.0;
        (shared.following.load(Ordering::Relaxed), shared.all)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.0.following.fetch_sub(1, Ordering::Relaxed);
    }
}
