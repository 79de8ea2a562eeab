//! The service that waits for the first answer.

use std::{
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tower_mesh_core::{
    BoxError, Endpoints, Resolution,
    frame::{Framing, Own},
};
use tower_service::Service;

use crate::{future::ResponseFuture, watch::Watch};

/// Holds calls until it is known where the service answers; made by [`DiscoveryLayer`](crate::DiscoveryLayer).
///
/// It is always ready and reserves nothing. Once there has been an answer it calls the inner service at once, which is
/// always ready, too ([`PerCall`](tower_mesh_core::PerCall) makes it so); before, the call holds a clone.
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
pub struct Discovered<S, G = Own> {
    inner: S,
    watch: Arc<Watch>,
    wait: Duration,
    framing: PhantomData<G>,
}

impl<S, G> Discovered<S, G> {
    pub(crate) fn new(inner: S, watch: Arc<Watch>, wait: Duration) -> Self {
        Self {
            inner,
            watch,
            wait,
            framing: PhantomData,
        }
    }

    /// The endpoints that calls wait for.
    pub fn endpoints(&self) -> &Endpoints {
        self.watch.endpoints()
    }
}

impl<S, G, Req> Service<Req> for Discovered<S, G>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    G: Framing,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req, G>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        if self.watch.resolution() == Resolution::Found {
            ResponseFuture::called(self.inner.call(request), &self.watch)
        } else {
            ResponseFuture::held(self.inner.clone(), request, &self.watch, self.wait)
        }
    }
}
