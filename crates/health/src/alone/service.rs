use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower::{load::TrackCompletion, util::Oneshot};
use tower_mesh_core::{Attempt, BoxError, Classify, Promises};
use tower_service::Service;

use crate::alone::{future::ResponseFuture, layer::Judged};

/// Calls a service while it is healthy; made by [`HealthLayer`](crate::HealthLayer).
///
/// It is always ready and reserves nothing. The judges are asked when the future is first polled; then a clone of the
/// service is made ready and called.
///
/// # Clone
///
/// A clone has the same judges, and a clone of the service.
///
/// # Errors
///
/// [`ServiceUnhealthy`](crate::ServiceUnhealthy) while calls are refused; the service's own errors are passed on.
#[derive(Clone)]
pub struct Health<S, K, C> {
    inner: S,
    judged: Arc<Judged>,
    classify: K,
    completion: C,
}

impl<S, K, C> Health<S, K, C> {
    pub(crate) fn new(inner: S, judged: Arc<Judged>, classify: K, completion: C) -> Self {
        Self {
            inner,
            judged,
            classify,
            completion,
        }
    }
}

impl<S, K, C, Req> Service<Req> for Health<S, K, C>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    K: Classify<S::Response>,
    C: TrackCompletion<Attempt, S::Response> + Promises<K::Answer>,
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
            Arc::clone(&self.judged),
            self.classify.clone(),
            self.completion.clone(),
        )
    }
}

impl<S: fmt::Debug, K, C> fmt::Debug for Health<S, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("inner", &self.inner)
            .field("service", &self.judged.service.id())
            .finish_non_exhaustive()
    }
}
