//! The service of a throttle.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tower_mesh_core::{BoxError, Classify};
use tower_service::Service;

use super::{counts::Counts, future::ThrottleFuture, layer::Settings};

/// Makes fewer calls to what accepts few; made by [`ThrottleLayer`](super::ThrottleLayer).
///
/// # Errors
///
/// [`Throttled`](super::Throttled) for a call that is not made; the inner service's errors pass.
///
/// # Clone
///
/// Clones share what is counted.
#[derive(Clone, Debug)]
pub struct Throttle<S, K> {
    pub(super) inner: S,
    pub(super) settings: Settings,
    pub(super) classify: K,
    pub(super) counts: Arc<Counts>,
}

impl<S, K, Req> Service<Req> for Throttle<S, K>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    K: Classify<S::Response>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ThrottleFuture<S::Future, K>;

    /// Always ready: it reserves nothing.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ThrottleFuture::new(
            self.inner.call(request),
            self.settings.clone(),
            self.classify.clone(),
            Arc::clone(&self.counts),
        )
    }
}
