//! One call: pick, get ready, call, judge.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::load::TrackCompletion;
use tower_mesh_core::{
    Attempt, BoxError, Classify, Promises, Verdict,
    frame::{self, Phase},
};
use tower_service::Service;

use crate::{
    attempt::{Bomb, Unanswered, blame, unsent},
    error::NoEndpoint,
    pick::Avoid,
    pool::Pool,
};

/// How often another endpoint is picked because one is not ready.
const REPICKS: u8 = 2;

pin_project! {
    /// The future of a [`Balance`](crate::Balance); `J` is the pair of its classifier and its completion.
    ///
    /// # Cancel safety
    ///
    /// Dropping it cancels the call: the endpoint's future is dropped, a probe's place is free again. That is no failure
    /// of the endpoint, unless the mesh drops it because its time is up.
    #[must_use = "futures do nothing unless polled"]
    #[project = This]
    pub struct ResponseFuture<S, Req, J>
    where
        S: Service<Req>,
    {
        pool: Arc<Pool<S, J>>,
        request: Option<Req>,
        attempt: Unanswered,
        repicks: u8,
        #[pin]
        stage: Stage<S, S::Future>,
    }
}

pin_project! {
    #[project = StageProj]
    #[project_replace = StageOwn]
    enum Stage<S, F> {
        Begin,
        // Waits for an endpoint's readiness; the request is still here.
        Waiting { service: S },
        Called { #[pin] future: F },
        Over,
    }
}

/// What came of one endpoint in one poll.
enum Turn<S, T> {
    /// It was called; this is what its future says.
    Called(Poll<Result<T, BoxError>>),
    /// It is not ready yet.
    Pending(S),
    /// It cannot become ready; it was not called.
    Failed(BoxError),
}

impl<S, Req, J> ResponseFuture<S, Req, J>
where
    S: Service<Req>,
{
    pub(crate) fn new(pool: Arc<Pool<S, J>>, request: Req) -> Self {
        Self {
            pool,
            request: Some(request),
            attempt: Unanswered(None),
            repicks: REPICKS,
            stage: Stage::Begin,
        }
    }
}

impl<S, Req, K, C> Future for ResponseFuture<S, Req, (K, C)>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    K: Classify<S::Response>,
    C: TrackCompletion<Attempt, S::Response> + Promises<K::Answer>,
{
    type Output = Result<C::Output, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let turn = match this.stage.as_mut().project() {
            StageProj::Begin => match this.pick() {
                Ok(service) => this.turn(service, cx),
                Err(error) => return Poll::Ready(Err(error.into())),
            },
            StageProj::Called { .. } => Turn::Called(this.poll_called(cx)),
            StageProj::Waiting { .. } => this.turn_again(cx),
            StageProj::Over => panic!("`ResponseFuture` polled after completion"),
        };
        match turn {
            Turn::Called(answer) => Poll::Ready(this.judge(ready!(answer))),
            Turn::Pending(_) | Turn::Failed(_) => this.elsewhere(turn, cx),
        }
    }
}

impl<S, Req, K, C> This<'_, S, Req, (K, C)>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    K: Classify<S::Response>,
    C: TrackCompletion<Attempt, S::Response> + Promises<K::Answer>,
{
    /// Begins an attempt at the endpoint that suits best.
    fn pick(&mut self) -> Result<S, NoEndpoint> {
        let now = frame::now(&self.pool.settings.clock);
        frame::enter(Phase::Attempt, now);
        // A retry is not risked as a probe, and goes where the call has not been.
        let retry = frame::begin_attempt() > 1;
        let avoid = match retry {
            true => Avoid::tried(frame::was_tried),
            false => Avoid::default(),
        };
        let picked = self.pool.admit(now, !retry, &avoid, &mut self.attempt.0);
        let service = match picked {
            Some(service) => service,
            None => self.pool.admit_any(now, &mut self.attempt.0)?,
        };
        frame::mark_tried(self.attempt.key());
        Ok(service)
    }

    /// Begins an attempt at another endpoint, unless that has been done often enough or there is none.
    fn pick_another(&mut self, avoid: &Avoid) -> Option<S> {
        *self.repicks = self.repicks.checked_sub(1)?;
        let now = frame::now(&self.pool.settings.clock);
        let service = self.pool.admit(now, false, avoid, &mut self.attempt.0)?;
        frame::mark_tried(self.attempt.key());
        Some(service)
    }

    /// Polls `service` ready and calls it.
    fn turn(&mut self, mut service: S, cx: &mut Context<'_>) -> Turn<S, S::Response> {
        let Self { request, stage, .. } = self;
        let bomb = Bomb(self.attempt);
        let polled = frame::hidden(|| {
            if let Err(error) = ready!(service.poll_ready(cx)) {
                return Poll::Ready(Err(error.into()));
            }
            let request = request.take().expect("a request is sent once");
            let future = service.call(request);
            stage.set(Stage::Called { future });
            poll_called(stage.as_mut(), cx).map(Ok)
        });
        bomb.defuse();
        match polled {
            Poll::Ready(Ok(answer)) => Turn::Called(Poll::Ready(answer)),
            Poll::Ready(Err(unready)) => Turn::Failed(unready),
            Poll::Pending if request.is_none() => Turn::Called(Poll::Pending),
            Poll::Pending => Turn::Pending(service),
        }
    }

    /// As [`turn`](Self::turn), with the service that was waited for.
    #[cold]
    fn turn_again(&mut self, cx: &mut Context<'_>) -> Turn<S, S::Response> {
        match self.stage.as_mut().project_replace(Stage::Begin) {
            StageOwn::Waiting { service } => self.turn(service, cx),
            _ => unreachable!("asked for while it waits only"),
        }
    }

    fn poll_called(&mut self, cx: &mut Context<'_>) -> Poll<Result<S::Response, BoxError>> {
        let bomb = Bomb(self.attempt);
        let polled = frame::hidden(|| poll_called(self.stage.as_mut(), cx));
        bomb.defuse();
        polled
    }

    /// Goes on after an endpoint that is not ready: with others, or else waits for the first that may become so.
    #[cold]
    fn elsewhere(
        &mut self,
        mut turn: Turn<S, S::Response>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<C::Output, BoxError>> {
        let mut first: Option<(S, Unanswered)> = None;
        let mut failed = None;
        let mut avoid = Avoid::tried(frame::was_tried);
        loop {
            // Without a frame nobody else remembers it.
            avoid.add(self.attempt.key());
            match turn {
                Turn::Called(answer) => return answer.map(|answer| self.judge(answer)),
                Turn::Failed(error) => {
                    failed = Some(blame(&self.pool.judging.0, self.attempt, unsent(error)));
                }
                // All but the first are given up here.
                Turn::Pending(service) => {
                    first.get_or_insert((service, mem::take(self.attempt)));
                }
            }
            match self.pick_another(&avoid) {
                Some(service) => turn = self.turn(service, cx),
                None => break,
            }
        }
        match (first, failed) {
            (Some((service, attempt)), _) => {
                *self.attempt = attempt;
                self.stage.set(Stage::Waiting { service });
                Poll::Pending
            }
            (None, Some(error)) => {
                self.stage.set(Stage::Over);
                Poll::Ready(Err(error))
            }
            (None, None) => unreachable!("some endpoint was not ready"),
        }
    }

    /// Tells what became of the attempt, and hands it over to the completion.
    fn judge(&mut self, answer: Result<S::Response, BoxError>) -> Result<C::Output, BoxError> {
        self.stage.set(Stage::Over);
        let (classify, completion) = &self.pool.judging;
        let response = answer.map_err(|error| blame(classify, self.attempt, error))?;
        let mut bomb = Bomb(self.attempt);
        if let Verdict::Done(outcome) = classify.classify(Ok(&response)).into() {
            bomb.finish(outcome);
        }
        Ok(completion.track_completion(bomb.take(), response))
    }
}

fn poll_called<S, F, T, E>(
    stage: Pin<&mut Stage<S, F>>,
    cx: &mut Context<'_>,
) -> Poll<Result<T, BoxError>>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    match stage.project() {
        StageProj::Called { future } => future.poll(cx).map_err(Into::into),
        _ => unreachable!("polled only after the service was called"),
    }
}

impl<S, Req, J> fmt::Debug for ResponseFuture<S, Req, J>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Begin => "begin",
            Stage::Waiting { .. } => "waiting for readiness",
            Stage::Called { .. } => "called",
            Stage::Over => "over",
        };
        f.debug_struct("ResponseFuture")
            .field("stage", &stage)
            .field("attempt", &self.attempt.0)
            .finish_non_exhaustive()
    }
}
