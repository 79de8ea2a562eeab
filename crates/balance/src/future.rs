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
use tower_mesh_core::{Attempt, BoxError, Classify, Promises, Verdict, frame};
use tower_service::Service;

use crate::{
    attempt::{Bomb, Unanswered, blame, unsent},
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
        // Zero is none.
        key: u64,
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
            key: 0,
            stage: Stage::Begin,
        }
    }
}

impl<S, Req, J> ResponseFuture<S, Req, J>
where
    S: Service<Req>,
{
    /// The same, for a request with this key.
    pub(crate) fn with_key(mut self, key: Option<u64>) -> Self {
        self.key = key.map_or(0, |key| key.max(1));
        self
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

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.as_mut().project().stage.project() {
            StageProj::Called { .. } => {}
            StageProj::Begin => {
                let service = self.as_mut().pick()?;
                ready!(self.as_mut().send(service, cx))?;
            }
            StageProj::Waiting { .. } => ready!(self.as_mut().send_again(cx))?,
            StageProj::Over => panic!("`ResponseFuture` polled after completion"),
        }
        let answer = ready!(self.as_mut().poll_called(cx));
        Poll::Ready(self.judge(answer))
    }
}

// Each step projects for itself: a projection that the rare steps are given by reference is written out for all.
impl<S, Req, K, C> ResponseFuture<S, Req, (K, C)>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    K: Classify<S::Response>,
    C: TrackCompletion<Attempt, S::Response> + Promises<K::Answer>,
{
    /// Begins an attempt at the endpoint that suits best.
    #[inline(always)]
    fn pick(self: Pin<&mut Self>) -> Result<S, BoxError> {
        let This {
            pool, attempt, key, ..
        } = self.project();
        let now = frame::now(&pool.settings.clock);
        // A retry is not risked as a probe, and goes where the call has not been.
        let retry = frame::begin_attempt(now) > 1;
        let mut avoid = match retry {
            true => Avoid::tried(frame::was_tried),
            false => Avoid::default(),
        };
        avoid.key = *key;
        let service = match pool.admit(now, !retry, &avoid, &mut attempt.0) {
            Some(service) => service,
            None => pool.admit_any(now, &mut attempt.0)?,
        };
        frame::mark_tried(attempt.key());
        Ok(service)
    }

    /// Begins an attempt at another endpoint, unless that has been done often enough or there is none.
    fn pick_another(self: Pin<&mut Self>, avoid: &Avoid) -> Option<S> {
        let this = self.project();
        *this.repicks = this.repicks.checked_sub(1)?;
        let now = frame::now(&this.pool.settings.clock);
        let service = (this.pool).admit(now, false, avoid, &mut this.attempt.0)?;
        frame::mark_tried(this.attempt.key());
        Some(service)
    }

    /// Sends the request through `service`, or else through that of another endpoint; ready once it is sent.
    #[inline(always)]
    fn send(
        mut self: Pin<&mut Self>,
        mut service: S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>> {
        match self.as_mut().offer(&mut service, cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            refused => self.elsewhere(service, refused, cx),
        }
    }

    /// As [`send`](Self::send), with the service that was waited for.
    #[cold]
    fn send_again(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let stage = self.as_mut().project().stage;
        match stage.project_replace(Stage::Begin) {
            StageOwn::Waiting { service } => {
                // The service may tell the other side what is left of the deadline: now, not when the wait began.
                frame::now(&self.as_mut().project().pool.settings.clock);
                self.send(service, cx)
            }
            _ => unreachable!("asked for while it waits only"),
        }
    }

    /// Calls `service` if it is ready.
    #[inline(always)]
    fn offer(
        self: Pin<&mut Self>,
        service: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>> {
        let mut this = self.project();
        let bomb = Bomb(this.attempt);
        let offered = frame::hide(|| {
            ready!(service.poll_ready(cx)).map_err(Into::into)?;
            let request = this.request.take().expect("a request is sent once");
            let future = service.call(request);
            this.stage.set(Stage::Called { future });
            Poll::Ready(Ok(()))
        });
        bomb.defuse();
        offered
    }

    #[inline(always)]
    fn poll_called(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, S::Error>> {
        let this = self.project();
        let bomb = Bomb(this.attempt);
        let polled = frame::hidden(|| match this.stage.project() {
            StageProj::Called { future } => future.poll(cx),
            _ => unreachable!("polled only after the service was called"),
        });
        bomb.defuse();
        polled
    }

    /// Goes on after `service`, which is not ready: with others, or else waits for the first that may become so.
    #[cold]
    fn elsewhere(
        mut self: Pin<&mut Self>,
        mut service: S,
        mut refused: Poll<Result<(), BoxError>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>> {
        let mut first: Option<(S, Unanswered)> = None;
        let mut failed = None;
        let mut avoid = Avoid::tried(frame::was_tried);
        avoid.key = *self.as_mut().project().key;
        loop {
            let this = self.as_mut().project();
            // Without a frame nobody else remembers it.
            avoid.add(this.attempt.key());
            match refused {
                Poll::Ready(Ok(())) => return refused,
                Poll::Ready(Err(error)) => {
                    failed = Some(blame(&this.pool.judging.0, this.attempt, unsent(error)));
                }
                // All but the first are given up here.
                Poll::Pending => {
                    first.get_or_insert((service, mem::take(this.attempt)));
                }
            }
            match self.as_mut().pick_another(&avoid) {
                Some(another) => service = another,
                None => break,
            }
            refused = self.as_mut().offer(&mut service, cx);
        }
        let mut this = self.project();
        match (first, failed) {
            (Some((service, attempt)), _) => {
                *this.attempt = attempt;
                this.stage.set(Stage::Waiting { service });
                Poll::Pending
            }
            (None, Some(error)) => {
                this.stage.set(Stage::Over);
                Poll::Ready(Err(error))
            }
            (None, None) => unreachable!("some endpoint was not ready"),
        }
    }

    /// Tells what became of the attempt, and hands it over to the completion.
    #[inline(always)]
    fn judge(
        self: Pin<&mut Self>,
        answer: Result<S::Response, S::Error>,
    ) -> Result<C::Output, BoxError> {
        let mut this = self.project();
        this.stage.set(Stage::Over);
        let (classify, completion) = &this.pool.judging;
        let response = answer.map_err(|error| blame(classify, this.attempt, error.into()))?;
        let mut bomb = Bomb(this.attempt);
        if this.pool.settings.strategy.hears_reports()
            && let Some(report) = classify.report(&response)
        {
            bomb.report(report);
        }
        if let Verdict::Done(outcome) = classify.classify(Ok(&response)).into() {
            bomb.finish(outcome);
        }
        Ok(completion.track_completion(bomb.take(), response))
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
