//! A call that waits for the first answer, if there has been none.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower_mesh_core::{
    BoxError, Clock, Instant, Resolution,
    frame::{self, Framing, Own, Phase},
    rare::Rare,
};
use tower_service::Service;

use crate::watch::Watch;

pin_project! {
    /// The future of [`Discovered`](crate::Discovered).
    ///
    /// # Cancel safety
    ///
    /// Dropping it abandons the call; the look-up goes on for the others.
    pub struct ResponseFuture<S, Req, G = Own>
    where
        S: Service<Req>,
        G: Framing,
    {
        #[pin]
        call: G::Call,
        #[pin]
        state: State<S, Req, S::Future>,
        clock: Clock,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Req, F> {
        Held { held: Rare<Held<S, Req>> },
        Called { #[pin] future: F },
    }
}

/// A call that is not made yet.
struct Held<S, Req> {
    inner: S,
    request: Req,
    watch: Arc<Watch>,
    wait: Duration,
    waiting: Option<Waiting>,
}

/// For the first answer. On the heap, like what it waits with: only the first calls of a service come here.
struct Waiting {
    since: Instant,
    resolved: Pin<Box<dyn Future<Output = Resolution> + Send>>,
}

impl<S, Req, G> ResponseFuture<S, Req, G>
where
    S: Service<Req>,
    G: Framing,
{
    /// The service may have to be waited for.
    pub(crate) fn held(inner: S, request: Req, watch: &Arc<Watch>, wait: Duration) -> Self {
        let held = Held {
            inner,
            request,
            watch: Arc::clone(watch),
            wait,
            waiting: None,
        };
        let held = Rare::some(held);
        Self::new(State::Held { held }, watch)
    }

    /// The service was there, and has been called.
    #[inline]
    pub(crate) fn called(future: S::Future, watch: &Watch) -> Self {
        Self::new(State::Called { future }, watch)
    }

    #[inline]
    fn new(state: State<S, Req, S::Future>, watch: &Watch) -> Self {
        Self {
            call: G::Call::default(),
            state,
            clock: watch.clock().clone(),
        }
    }
}

impl<S, Req, G> Future for ResponseFuture<S, Req, G>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    G: Framing,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut state = this.state;
        G::poll(this.call, this.clock, cx, |cx| {
            loop {
                match state.as_mut().project() {
                    StateProj::Called { future } => {
                        return future.poll(cx).map_err(Into::into);
                    }
                    StateProj::Held { held } => {
                        let call = held.as_mut().expect("held until it is called");
                        ready!(call.watch.poll_found(&mut call.waiting, call.wait, cx))?;
                        let mut call = *held.take().expect("held until now");
                        let future = call.inner.call(call.request);
                        state.set(State::Called { future });
                    }
                }
            }
        })
    }
}

impl Watch {
    /// Ready when the service is found; fails if there is none, or if it is not known in time.
    fn poll_found(
        &self,
        waiting: &mut Option<Waiting>,
        limit: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>> {
        match self.resolution() {
            Resolution::Found if waiting.is_none() => return Poll::Ready(Ok(())),
            Resolution::Absent => return Poll::Ready(Err(self.absent())),
            Resolution::Found | Resolution::Pending => {}
        }
        self.poll_waiting(waiting, limit, cx)
    }

    #[cold]
    fn poll_waiting(
        &self,
        waiting: &mut Option<Waiting>,
        limit: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>> {
        let Waiting { since, resolved } = waiting.get_or_insert_with(|| {
            let since = frame::now(self.clock());
            frame::enter(Phase::Discovery, since);
            let endpoints = self.endpoints().clone();
            let resolved = Box::pin(async move { endpoints.resolved().await });
            Waiting { since, resolved }
        });
        let deadline = frame::deadline();
        let until = deadline.unwrap_or(*since + limit);
        if let Poll::Ready(resolution) = resolved.as_mut().poll(cx) {
            *waiting = None;
            frame::enter(Phase::Attempt, frame::now(self.clock()));
            return Poll::Ready(match resolution {
                Resolution::Absent => Err(self.absent()),
                Resolution::Found | Resolution::Pending => Ok(()),
            });
        }
        if frame::fired(until) {
            let limit = deadline.is_none().then_some(limit);
            return Poll::Ready(Err(self.unresolved(limit)));
        }
        frame::wake_at(until);
        Poll::Pending
    }
}

impl<S, Req, G> fmt::Debug for ResponseFuture<S, Req, G>
where
    S: Service<Req>,
    G: Framing,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("called", &matches!(self.state, State::Called { .. }))
            .finish_non_exhaustive()
    }
}
