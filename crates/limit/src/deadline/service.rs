//! The service of a deadline.

use std::{
    marker::PhantomData,
    task::{Context, Poll},
    time::Duration,
};

use tower_mesh_core::{
    BoxError, Clock,
    frame::{Framing, Own},
};
use tower_service::Service;

use super::future::DeadlineFuture;

/// Ends calls that are not answered in time; see [`DeadlineLayer`](super::DeadlineLayer).
///
/// # Clone
///
/// Clones share nothing: the time is each call's own.
#[derive(Clone, Debug)]
pub struct Deadline<S, G = Own> {
    inner: S,
    timeout: Duration,
    clock: Clock,
    framing: PhantomData<G>,
}

impl<S, G> Deadline<S, G> {
    pub(super) fn new(inner: S, timeout: Duration, clock: Clock) -> Self {
        Self {
            inner,
            timeout,
            clock,
            framing: PhantomData,
        }
    }

    /// The service beneath.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, G, Req> Service<Req> for Deadline<S, G>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    G: Framing,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = DeadlineFuture<S::Future, G>;

    /// Always ready: the wait for the inner service is part of the call, and of its time.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        DeadlineFuture::new(self.inner.call(request), self.timeout, self.clock.clone())
    }
}
