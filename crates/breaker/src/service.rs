use std::{
    fmt,
    task::{Context, Poll},
};

use tower::{load::TrackCompletion, util::Oneshot};
use tower_mesh_core::{BoxError, Classify, Promises};
use tower_service::Service;

use crate::{breaker::Breaker, future::ResponseFuture, permit::Permit};

/// Calls a service as long as its breaker lets it; made by [`BreakerLayer`](crate::BreakerLayer).
///
/// It is always ready and reserves nothing. The breaker is asked when the future is first polled; then a clone of the
/// service is made ready and called.
///
/// # Clone
///
/// A clone has the same breaker, and a clone of the service.
///
/// # Errors
///
/// [`Open`](crate::Open) while the breaker refuses calls; the service's own errors are passed on.
#[derive(Clone)]
pub struct CircuitBreaker<S, K, C> {
    inner: S,
    breaker: Breaker,
    classify: K,
    completion: C,
}

impl<S, K, C> CircuitBreaker<S, K, C> {
    pub(crate) fn new(inner: S, breaker: Breaker, classify: K, completion: C) -> Self {
        Self {
            inner,
            breaker,
            classify,
            completion,
        }
    }

    /// Its breaker.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }
}

impl<S, K, C, Req> Service<Req> for CircuitBreaker<S, K, C>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    K: Classify<S::Response>,
    C: TrackCompletion<Permit, S::Response> + Promises<K::Answer>,
{
    type Response = C::Output;
    type Error = BoxError;
    type Future = ResponseFuture<Oneshot<S, Req>, K, C>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ResponseFuture::new(
            Oneshot::new(self.inner.clone(), request),
            self.breaker.clone(),
            self.classify.clone(),
            self.completion.clone(),
        )
    }
}

impl<S: fmt::Debug, K, C> fmt::Debug for CircuitBreaker<S, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("inner", &self.inner)
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}
