//! A breaker as its owner holds it.

use std::{any::Any, fmt, sync::Arc, time::Duration};

use tower_mesh_core::{Endpoint, JudgeKind};

use crate::{
    judge::BreakerJudge, layer::BreakerLayer, phase::State, settings::Settings, snapshot::Snapshot,
    transition::Reason,
};

/// A handle of one breaker: shows it, and takes it out of its own hands.
///
/// # Clone
///
/// A clone is the same breaker.
#[derive(Clone)]
pub struct Breaker(Arc<BreakerJudge>);

impl Breaker {
    /// A breaker that stands before no endpoint.
    pub(crate) fn new(name: Arc<str>, settings: &Arc<Settings>) -> Self {
        Self(Arc::new(BreakerJudge::new(name, settings, None)))
    }

    /// Has a breaker judge the calls of `endpoint`, unless one does already.
    pub(crate) fn attach(endpoint: &Endpoint, settings: &Arc<Settings>) {
        endpoint.vitals().attach(JudgeKind::Breaker, |gate| {
            Arc::new(BreakerJudge::new(endpoint.share_id(), settings, Some(gate)))
        });
    }

    /// The breaker that judges the calls of `endpoint`.
    pub(crate) fn of(endpoint: &Endpoint) -> Option<Self> {
        let gate = endpoint.vitals().gate();
        let judge: Arc<dyn Any + Send + Sync> = gate.judge(JudgeKind::Breaker)?.clone();
        Some(Self(judge.downcast().ok()?))
    }

    /// Its name: the id of its endpoint, the key in its registry, or what its layer was named.
    pub fn name(&self) -> &Arc<str> {
        self.0.name()
    }

    /// The state it is in.
    pub fn state(&self) -> State {
        self.0.state()
    }

    /// What it knows, of one moment.
    pub fn snapshot(&self) -> Snapshot {
        self.0.snapshot()
    }

    /// Refuses every call until somebody lets go of it.
    pub fn force_open(&self) {
        self.0.force(State::ForcedOpen, Reason::Forced);
    }

    /// Admits every call until somebody lets go of it.
    pub fn force_closed(&self) {
        self.0.force(State::ForcedClosed, Reason::Forced);
    }

    /// Lets it judge again, from closed and with nothing counted; changes nothing if it is not forced.
    pub fn release_force(&self) {
        self.0.release_force();
    }

    /// Begins anew: closed, not forced, nothing counted, its open time as short as at first.
    pub fn reset(&self) {
        self.0.force(State::Closed, Reason::Reset);
    }

    /// Opens it for `rest`: what is left of an open time that another process, or this one before it was started again,
    /// has seen begin. `openings` is the [`Snapshot::openings`](crate::Snapshot::openings) of that time. A breaker that is
    /// forced stays as it is.
    pub fn reopen(&self, rest: Duration, openings: u8) {
        self.0.reopen(rest, openings);
    }

    /// A layer whose services ask this breaker.
    ///
    /// The breaker of an endpoint should be left to its balancer: asked by both, one call takes two of its places.
    pub fn layer(&self) -> BreakerLayer {
        BreakerLayer::of(self.clone(), Arc::clone(self.0.settings()))
    }

    pub(crate) fn judge(&self) -> &BreakerJudge {
        &self.0
    }

    /// Whether nobody else holds it, a service or a call, so that nobody would miss it.
    pub(crate) fn is_unheld(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
