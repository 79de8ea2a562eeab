//! A call through a bulkhead.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::load::TrackCompletion;
use tower_mesh_core::BoxError;

use super::{pool::Permit, wait::Wait};

pin_project! {
    /// The response of a [`Bulkhead`](super::Bulkhead).
    ///
    /// # Cancel safety
    ///
    /// Until it is first polled it holds nothing. Dropped while it waits, it gives its place to the next; dropped while
    /// it runs, it ends the inner call first and then lets the next one in.
    pub struct BulkheadFuture<F, C> {
        // First, so that it is dropped before the permit is given back.
        #[pin]
        inner: F,
        // None: the call has ended.
        pass: Option<Pass>,
        completion: C,
    }
}

impl<F, C> BulkheadFuture<F, C> {
    pub(super) fn new(inner: F, permit: Permit, completion: C) -> Self {
        Self {
            inner,
            pass: Some(Pass::Direct(permit)),
            completion,
        }
    }
}

impl<F, C, T, E> Future for BulkheadFuture<F, C>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
    C: TrackCompletion<Permit, T>,
{
    type Output = Result<C::Output, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if !this.pass.as_mut().is_some_and(Pass::try_take) {
            ready!(poll_wait(this.pass, cx))?;
        }
        let mut take = || match this.pass.take() {
            Some(Pass::Direct(permit)) => permit,
            _ => unreachable!("nobody is let in without a permit"),
        };
        // Taken apart in one step: each further one would move the response once more.
        match this.inner.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(response)) => {
                Poll::Ready(Ok(this.completion.track_completion(take(), response)))
            }
            Poll::Ready(Err(error)) => {
                drop(take());
                Poll::Ready(Err(error.into()))
            }
        }
    }
}

/// How a call comes by its permit.
enum Pass {
    /// It takes one, or has.
    Direct(Permit),
    /// It waits. Boxed, so that only who waits pays for the room of a timer.
    Waiting(Pin<Box<Wait>>),
}

impl Pass {
    /// Whether the call may run; takes a permit if one is free at once.
    #[inline]
    fn try_take(&mut self) -> bool {
        match self {
            Self::Direct(permit) => permit.is_taken() || permit.try_take(),
            Self::Waiting(_) => false,
        }
    }
}

/// Waits for a permit, if that is allowed.
#[cold]
#[inline(never)]
fn poll_wait(pass: &mut Option<Pass>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
    if let Some(Pass::Direct(permit)) = pass {
        let pool = permit.pool();
        if pool.settings.places(pool.settings.priority()) == 0 {
            return Poll::Ready(Err(pool.refuse().into()));
        }
        *pass = Some(Pass::Waiting(Box::pin(Wait::new(Arc::clone(pool)))));
    }
    let Some(Pass::Waiting(wait)) = pass else {
        panic!("polled after completion");
    };
    let permit = ready!(wait.as_mut().poll(cx))?;
    *pass = Some(Pass::Direct(permit));
    Poll::Ready(Ok(()))
}

impl<F, C> fmt::Debug for BulkheadFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = matches!(self.pass, Some(Pass::Waiting(_)));
        f.debug_struct("BulkheadFuture")
            .field("waiting", &waiting)
            .finish_non_exhaustive()
    }
}
