//! A clone of the inner service for each call.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

/// Makes any service one that is always ready: each call gets a clone of its own, which is readied and called when the
/// call's future is polled.
///
/// What the clone's readiness reserves ends with the call. Layers of the mesh put it round the service they are given,
/// unless that service is always ready by itself (`over`).
///
/// # Clone
///
/// A clone holds nothing of the inner service, and waits for nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerCall<S>(S);

impl<S> PerCall<S> {
    /// Calls a clone of `inner` for each call.
    pub const fn new(inner: S) -> Self {
        Self(inner)
    }
}

impl<S, Req> Service<Req> for PerCall<S>
where
    S: Service<Req> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = PerCallFuture<S, Req>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        PerCallFuture {
            state: State::Readying {
                service: self.0.clone(),
                request: Some(request),
            },
        }
    }
}

pin_project! {
    /// The response of a [`PerCall`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it gives back what the clone's readiness reserved, or ends the call.
    pub struct PerCallFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, Req>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Req>
    where
        S: Service<Req>,
    {
        Readying { service: S, request: Option<Req> },
        Running { #[pin] response: S::Future },
    }
}

impl<S: Service<Req>, Req> Future for PerCallFuture<S, Req> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let response = match state.as_mut().project() {
                StateProj::Running { response } => return response.poll(cx),
                StateProj::Readying { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    service.call(request.take().expect("polled after it has failed"))
                }
            };
            state.set(State::Running { response });
        }
    }
}

impl<S: Service<Req>, Req> fmt::Debug for PerCallFuture<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let called = matches!(self.state, State::Running { .. });
        f.debug_struct("PerCallFuture")
            .field("called", &called)
            .finish_non_exhaustive()
    }
}
