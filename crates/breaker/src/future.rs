use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower::load::TrackCompletion;
use tower_mesh_core::{
    Attempt, BoxError, Classify, ClassifyErrors, Finish, Outcome, Promises, Verdict, frame,
};

use crate::breaker::Breaker;

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
        admission: Admission,
        classify: K,
        completion: C,
    }
}

enum Admission {
    /// It has not been polled.
    Asked(Breaker),
    /// It is under way.
    Granted(Attempt),
    /// It has ended, or panicked.
    Over,
}

impl<F, K, C> ResponseFuture<F, K, C> {
    pub(crate) fn new(inner: F, breaker: Breaker, classify: K, completion: C) -> Self {
        Self {
            inner,
            admission: Admission::Asked(breaker),
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
    C: TrackCompletion<Attempt, Res> + Promises<K::Answer>,
{
    type Output = Result<C::Output, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut bomb = Bomb(match std::mem::replace(this.admission, Admission::Over) {
            Admission::Asked(breaker) => Some(breaker.admit()?),
            Admission::Granted(attempt) => Some(attempt),
            Admission::Over => panic!("polled after it has ended"),
        });
        let Poll::Ready(result) = frame::observed(|| this.inner.poll(cx)) else {
            if let Some(attempt) = bomb.defuse() {
                *this.admission = Admission::Granted(attempt);
            }
            return Poll::Pending;
        };
        let result = result.map_err(Into::into);
        let verdict = verdict(this.classify, &result);
        let mut attempt = bomb.defuse().expect("it is armed above");
        if let Verdict::Done(outcome) = verdict {
            attempt.finish(outcome);
        }
        Poll::Ready(result.map(|response| this.completion.track_completion(attempt, response)))
    }
}

fn verdict<Res, K: Classify<Res>>(classify: &K, result: &Result<Res, BoxError>) -> Verdict {
    match result {
        Ok(response) => classify.classify(Ok(response)).into(),
        Err(error) => {
            let error: &(dyn Error + Send + Sync + 'static) = &**error;
            match classify.classify(Err(error)).into() {
                // An error has no body that could tell more.
                Verdict::Deferred => ClassifyErrors::error(error).into(),
                done => done,
            }
        }
    }
}

/// Makes a panic of the service or the classifier a failure: an attempt that is merely dropped while unwinding would
/// pass for one whose caller went away.
struct Bomb(Option<Attempt>);

impl Bomb {
    fn defuse(&mut self) -> Option<Attempt> {
        self.0.take()
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        if let Some(mut attempt) = self.0.take() {
            attempt.finish(Outcome::failure());
        }
    }
}

impl<F, K, C> fmt::Debug for ResponseFuture<F, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.admission {
            Admission::Asked(_) => "not polled",
            Admission::Granted(_) => "under way",
            Admission::Over => "over",
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}
