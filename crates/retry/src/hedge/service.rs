use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};

use tower_mesh_core::{
    BoxError, Classify, Clock, Endpoints, Replay,
    frame::{Framing, Own},
};
use tower_service::Service;

use super::{
    future::HedgeFuture,
    plan::Plan,
    timing::{HedgeSnapshot, Timing},
};
use crate::budget::Budget;

/// Makes a second attempt beside one that takes long, made by [`HedgeLayer`](crate::HedgeLayer).
///
/// It is always ready, and calls an inner service that is, too.
///
/// # Clone
///
/// A call belongs to itself alone; clones share the budget and what has been learned.
#[derive(Clone)]
pub struct Hedge<S, R, K, G = Own> {
    inner: S,
    rules: Arc<HedgeRules<R, K>>,
    framing: PhantomData<G>,
}

/// What a [`HedgeLayer`](crate::HedgeLayer) was told; part of the name of [`HedgeFuture`].
#[derive(Clone)]
pub struct HedgeRules<R, K> {
    pub(super) budget: Budget,
    pub(super) plan: Plan,
    pub(super) timing: Arc<Timing>,
    pub(super) endpoints: Option<Endpoints>,
    pub(super) replay: R,
    pub(super) classify: K,
    pub(super) clock: Clock,
}

impl<S, R, K, G> Hedge<S, R, K, G> {
    pub(super) fn new(inner: S, rules: Arc<HedgeRules<R, K>>) -> Self {
        Self {
            inner,
            rules,
            framing: PhantomData,
        }
    }

    /// What is known, and what became of hedges.
    pub fn snapshot(&self) -> HedgeSnapshot {
        self.rules.timing.snapshot()
    }
}

impl<S, R, K, G, Req> Service<Req> for Hedge<S, R, K, G>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<Req>,
    K: Classify<S::Response>,
    G: Framing,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = HedgeFuture<S, HedgeRules<R, K>, Req, G>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Req) -> Self::Future {
        let rules = &*self.rules;
        let idempotent = rules.plan.attempts.get() > 1 && rules.replay.is_idempotent(&request);
        let spare = if idempotent && rules.timing.is_known() {
            let kept = rules.replay.keep(&mut request);
            let kept = kept.filter(|kept| rules.replay.can_overlap(kept));
            kept.map(|kept| (self.inner.clone(), kept))
        } else {
            None
        };
        let first = self.inner.call(request);
        HedgeFuture::new(Arc::clone(&self.rules), first, spare, idempotent)
    }
}

/// So that the future can say what it keeps of a request without a parameter for it.
impl<R, K, Req> Replay<Req> for HedgeRules<R, K>
where
    R: Replay<Req>,
    K: Clone,
{
    type Kept = R::Kept;

    fn is_idempotent(&self, request: &Req) -> bool {
        self.replay.is_idempotent(request)
    }

    fn keep(&self, request: &mut Req) -> Option<R::Kept> {
        self.replay.keep(request)
    }

    fn again(&self, kept: &R::Kept) -> Option<Req> {
        self.replay.again(kept)
    }

    fn can_overlap(&self, kept: &R::Kept) -> bool {
        self.replay.can_overlap(kept)
    }
}

impl<R, K> fmt::Debug for HedgeRules<R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeRules")
            .field("budget", &self.budget)
            .field("plan", &self.plan)
            .field("after", &self.timing.after())
            .field("known", &self.timing.snapshot())
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, R, K, G> fmt::Debug for Hedge<S, R, K, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedge")
            .field("inner", &self.inner)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}
