use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};

use tower_mesh_core::{
    BoxError, Classify, Clock, Replay, Rng,
    frame::{Framing, Own},
};
use tower_service::Service;

use crate::{
    budget::Budget,
    future::{ResponseFuture, State},
    limits::Limits,
};

/// Calls its inner service again when a call fails, made by [`RetryLayer`](crate::RetryLayer).
///
/// It is always ready: each attempt readies the service that it calls.
///
/// # Clone
///
/// A call belongs to itself alone; clones share the budget.
#[derive(Clone)]
pub struct Retry<S, R, K, G = Own> {
    inner: S,
    /// Whether the inner service may be called without being asked.
    always_ready: bool,
    rules: Arc<Rules<R, K>>,
    framing: PhantomData<G>,
}

/// What a [`RetryLayer`](crate::RetryLayer) was told; part of the name of [`ResponseFuture`].
#[derive(Clone)]
pub struct Rules<R, K> {
    pub(crate) budget: Budget,
    pub(crate) limits: Limits,
    pub(crate) replay: R,
    pub(crate) classify: K,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
}

impl<S, R, K, G> Retry<S, R, K, G> {
    pub(crate) fn new(inner: S, always_ready: bool, rules: Arc<Rules<R, K>>) -> Self {
        Self {
            inner,
            always_ready,
            rules,
            framing: PhantomData,
        }
    }

    /// The budget that retries come from.
    pub fn budget(&self) -> &Budget {
        &self.rules.budget
    }
}

impl<S, R, K, G, Req> Service<Req> for Retry<S, R, K, G>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<Req>,
    K: Classify<S::Response>,
    G: Framing,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Rules<R, K>, Req, G>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Req) -> Self::Future {
        let replay = &self.rules.replay;
        let may_retry = self.rules.limits.attempts.get() > 1;
        let kept = match may_retry {
            true => replay.keep(&mut request),
            false => None,
        };
        let rules = Arc::clone(&self.rules);
        // The clone is not ready, whatever this one is; the future readies it before it calls it.
        let service = self.inner.clone();
        let begin = |first| ResponseFuture::new(rules, service, kept, first);
        // The first state comes last, and for each by itself: so it is made where it stays.
        if self.always_ready {
            begin(State::sent(self.inner.call(request)))
        } else {
            begin(State::unsent(request))
        }
    }
}

/// So that the future can say what it keeps of a request without a parameter for it.
impl<R, K, Req> Replay<Req> for Rules<R, K>
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

impl<R, K> fmt::Debug for Rules<R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("budget", &self.budget)
            .field("limits", &self.limits)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, R, K, G> fmt::Debug for Retry<S, R, K, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("inner", &self.inner)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}
