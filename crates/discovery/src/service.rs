//! The service that waits for the first answer.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tower_mesh_core::{BoxError, Endpoints};
use tower_service::Service;

use crate::{future::ResponseFuture, watch::Watch};

/// Holds calls until it is known where the service answers; made by [`DiscoveryLayer`](crate::DiscoveryLayer).
///
/// It is always ready and reserves nothing: the inner service's readiness is awaited by the call, on a clone.
///
/// # Errors
///
/// [`ServiceNotFound`](crate::ServiceNotFound) at once if the registry says so,
/// [`Unresolved`](crate::Unresolved) if it has said nothing in time; the inner service's errors pass unchanged.
///
/// # Clone
///
/// Clones share what is known.
#[derive(Clone, Debug)]
pub struct Discovered<S> {
    inner: S,
    watch: Arc<Watch>,
    wait: Duration,
}

impl<S> Discovered<S> {
    pub(crate) fn new(inner: S, watch: Arc<Watch>, wait: Duration) -> Self {
        Self { inner, watch, wait }
    }

    /// The endpoints that calls wait for.
    pub fn endpoints(&self) -> &Endpoints {
        self.watch.endpoints()
    }
}

impl<S, Req> Service<Req> for Discovered<S>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ResponseFuture::new(
            self.inner.clone(),
            request,
            Arc::clone(&self.watch),
            self.wait,
        )
    }
}
