//! The handle of checks, and what it shares with its driver.

use std::{
    fmt,
    sync::{Arc, Weak},
    task::Waker,
};

use tower_mesh_core::{
    Clock, EndpointSet, Endpoints, Rng, ServiceName, Subscriber,
    sync::{Mutex, lock},
};

use crate::checks::{
    HealthCheck, driver::HealthDriver, policy::CheckPolicy, status::ServiceHealth,
};

/// Checks the endpoints of services, and keeps calls from those that do not answer.
///
/// An endpoint is checked as long as its service is [watched](Self::watch) and names it. Until checks have found it
/// unhealthy it takes calls. A check that succeeds lets an ejected endpoint come back, see
/// [`Readmission`](crate::Readmission).
///
/// # Clone
///
/// A clone is the same checker. The driver ends when the last of them is gone.
#[derive(Clone)]
pub struct HealthChecker(Arc<Handle>);

struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.update(|state| state.closed = true);
    }
}

/// How to check; from [`HealthChecker::builder`].
#[must_use = "it makes nothing before `build`"]
pub struct CheckerBuilder {
    check: Box<dyn HealthCheck>,
    policy: CheckPolicy,
    clock: Clock,
    rng: Rng,
}

pub(crate) struct Shared {
    pub(crate) check: Box<dyn HealthCheck>,
    pub(crate) policy: CheckPolicy,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    watched: Vec<(Endpoints, Arc<Watcher>)>,
    /// Whether somebody has watched, let go, or changed since the driver looked.
    changed: bool,
    closed: bool,
    waker: Option<Waker>,
}

/// Hears when the endpoints of a service change.
struct Watcher(Weak<Shared>);

impl Subscriber for Watcher {
    fn changed(&self, _: &EndpointSet) {
        if let Some(shared) = self.0.upgrade() {
            shared.update(|_| ());
        }
    }
}

impl HealthChecker {
    /// Begins a checker that asks `check`: [`TcpCheck`](crate::TcpCheck), a closure, one of your own.
    pub fn builder(check: impl HealthCheck) -> CheckerBuilder {
        Self::boxed(Box::new(check))
    }

    pub(crate) fn boxed(check: Box<dyn HealthCheck>) -> CheckerBuilder {
        CheckerBuilder {
            check,
            policy: CheckPolicy::default(),
            clock: Clock::default(),
            rng: Rng::default(),
        }
    }

    /// Checks the endpoints of this service, whichever they are, until it is [no longer watched](Self::unwatch).
    ///
    /// Endpoints that another checker checks are left to it. The endpoints are held, so discovery follows the service.
    pub fn watch(&self, endpoints: &Endpoints) {
        let watcher = Arc::new(Watcher(Arc::downgrade(&self.0.0)));
        self.unwatch(endpoints.service());
        self.0.0.update(|state| {
            let watched = (endpoints.clone(), Arc::clone(&watcher));
            state.watched.push(watched);
        });
        endpoints.subscribe(&watcher);
    }

    /// Checks the endpoints of this service no longer: nobody knows how they are, so they take calls.
    pub fn unwatch(&self, service: &ServiceName) {
        let mut gone = Vec::new();
        self.0.0.update(|state| {
            let kept = std::mem::take(&mut state.watched).into_iter();
            let (is, kept) = kept.partition(|(endpoints, _)| endpoints.service() == service);
            (gone, state.watched) = (is, kept);
        });
        drop(gone); // Not under the lock: it may be the last that is held of the set.
    }

    /// What checks have found of each service, in the order in which they were watched first.
    pub fn status(&self) -> Vec<ServiceHealth> {
        let now = self.0.0.clock.now();
        let watched = self.0.0.watched();
        watched
            .iter()
            .map(|endpoints| ServiceHealth::new(endpoints, now))
            .collect()
    }
}

impl CheckerBuilder {
    /// Checks by `policy` instead of the default.
    pub fn policy(mut self, policy: CheckPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Takes time from `clock`.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Takes jitter from `rng`.
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// The handle, and the driver that does the work.
    pub fn build(self) -> (HealthChecker, HealthDriver) {
        let shared = Arc::new(Shared {
            check: self.check,
            policy: self.policy,
            clock: self.clock,
            rng: self.rng,
            state: Mutex::default(),
        });
        let driver = HealthDriver::new(Arc::clone(&shared));
        (HealthChecker(Arc::new(Handle(shared))), driver)
    }
}

impl Shared {
    /// Changes what is to be done, and has the driver look.
    fn update(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = lock(&self.state);
            change(&mut state);
            state.changed = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The driver looks whether anything has changed; nothing if it is to end.
    pub(crate) fn look(&self, waker: &Waker) -> Option<bool> {
        let new = waker.clone();
        let mut state = lock(&self.state);
        let old = state.waker.replace(new);
        let changed = std::mem::take(&mut state.changed);
        let closed = state.closed;
        drop(state);
        drop(old); // Not under the lock: a waker is user code.
        (!closed).then_some(changed)
    }

    pub(crate) fn watched(&self) -> Vec<Endpoints> {
        let state = lock(&self.state);
        state
            .watched
            .iter()
            .map(|(endpoints, _)| endpoints.clone())
            .collect()
    }
}

impl fmt::Debug for HealthChecker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.0.fmt(f)
    }
}

impl fmt::Debug for CheckerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckerBuilder")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthChecker")
            .field("policy", &self.policy)
            .field("watched", &self.watched())
            .finish_non_exhaustive()
    }
}
