use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower::load::TrackCompletion;
use tower_mesh_core::{Attempt, Bomb, BoxError, Classify, Promises, Sampling, Verdict, frame};

use crate::alone::{error::ServiceUnhealthy, layer::Judged};

pin_project! {
    /// A call to a service that is judged; made by [`Health`](crate::Health).
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end it says nothing of the service. Dropped because the mesh's own time is up
    /// ([`frame::timing_out`]) it has failed.
    pub struct ResponseFuture<F, K, C> {
        #[pin]
        inner: F,
        stage: Stage,
        classify: K,
        completion: C,
    }
}

enum Stage {
    /// The judges have not been asked.
    Waiting(Arc<Judged>),
    Running(Attempt),
    Over,
}

impl Stage {
    /// Asks the judges, unless they have been asked.
    fn running(&mut self) -> Result<&mut Attempt, ServiceUnhealthy> {
        if let Self::Waiting(judged) = self {
            let now = frame::now(&judged.clock);
            let vitals = judged.service.vitals();
            match vitals.attempt_at(now, &judged.clock, Sampling::Mean) {
                Ok(attempt) => *self = Self::Running(attempt),
                Err(shut) => return Err(ServiceUnhealthy::new(&judged.service, shut, now)),
            }
        }
        match self {
            Self::Running(attempt) => Ok(attempt),
            _ => panic!("polled after it has ended"),
        }
    }
}

impl<F, K, C> ResponseFuture<F, K, C> {
    pub(crate) fn new(inner: F, judged: Arc<Judged>, classify: K, completion: C) -> Self {
        Self {
            inner,
            stage: Stage::Waiting(judged),
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
        let attempt = match this.stage.running() {
            Ok(attempt) => attempt,
            Err(unhealthy) => {
                *this.stage = Stage::Over;
                return Poll::Ready(Err(unhealthy.into()));
            }
        };
        let mut bomb = Bomb::armed(attempt);
        let Poll::Ready(result) = frame::observed(|| this.inner.poll(cx)) else {
            bomb.defuse();
            return Poll::Pending;
        };
        let result = result.map_err(Into::into);
        if let Verdict::Done(outcome) = this.classify.verdict(&result) {
            bomb.finish(outcome);
        }
        bomb.defuse();
        let Stage::Running(attempt) = std::mem::replace(this.stage, Stage::Over) else {
            unreachable!("it is running above");
        };
        Poll::Ready(result.map(|response| this.completion.track_completion(attempt, response)))
    }
}

impl<F, K, C> fmt::Debug for ResponseFuture<F, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = matches!(self.stage, Stage::Running(_));
        f.debug_struct("ResponseFuture")
            .field("running", &running)
            .finish_non_exhaustive()
    }
}
