use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower::load::TrackCompletion;
use tower_mesh_core::{Bomb, BoxError, Classify, Promises, Verdict, frame};

use crate::{breaker::Breaker, permit::Permit};

pin_project! {
    /// A call through a breaker; made by [`CircuitBreaker`](crate::CircuitBreaker).
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end it says nothing of the service, and if it was a probe its place is free again. Dropped
    /// because the mesh's own time is up ([`frame::timing_out`]) it has failed.
    pub struct ResponseFuture<F, K, C> {
        #[pin]
        inner: F,
        permit: Option<Permit>,
        classify: K,
        completion: C,
    }
}

impl<F, K, C> ResponseFuture<F, K, C> {
    pub(crate) fn new(inner: F, breaker: Breaker, classify: K, completion: C) -> Self {
        Self {
            inner,
            permit: Some(Permit::waiting(breaker)),
            classify,
            completion,
        }
    }
}

impl<F, K, C, Res, E> Future for ResponseFuture<F, K, C>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
    K: Classify<Res>,
    C: TrackCompletion<Permit, Res> + Promises<K::Answer>,
{
    type Output = Result<C::Output, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let permit = this.permit.as_mut().expect("polled after it has ended");
        if let Err(open) = permit.ask() {
            *this.permit = None;
            return Poll::Ready(Err(open.into()));
        }
        let mut bomb = Bomb::armed(permit);
        let Poll::Ready(result) = frame::observed(|| this.inner.poll(cx)) else {
            bomb.defuse();
            return Poll::Pending;
        };
        let result = result.map_err(Into::into);
        if let Verdict::Done(outcome) = this.classify.verdict(&result) {
            bomb.finish(outcome);
        }
        bomb.defuse();
        let permit = this.permit.take().expect("it is there above");
        Poll::Ready(result.map(|response| this.completion.track_completion(permit, response)))
    }
}

impl<F, K, C> fmt::Debug for ResponseFuture<F, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("permit", &self.permit)
            .finish_non_exhaustive()
    }
}
