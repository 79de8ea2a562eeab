use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_mesh_core::{
    BoxError, Classify, ClassifyErrors, Instant, Outcome, Replay, Sent, Verdict,
    frame::{self, Call, Phase},
};
use tower_service::Service;

use crate::{
    budget::Withdrawal,
    error::{AttemptTimeout, Exhausted, History, Why, is_final},
    limits::Progress,
    service::Rules,
};

pin_project! {
    /// The future of [`Retry`](crate::Retry).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the attempt that runs; while it waits, what it took out of the budget goes back.
    pub struct ResponseFuture<S, P, Req>
    where
        S: Service<Req>,
        P: Replay<Req>,
    {
        rules: Arc<P>,
        #[pin]
        call: Call,
        #[pin]
        attempts: Attempts<S, P::Kept, Req>,
    }
}

pin_project! {
    /// The attempts of one call.
    struct Attempts<S, Kept, Req>
    where
        S: Service<Req>,
    {
        service: S,
        kept: Option<Kept>,
        progress: Progress,
        history: History,
        // When the wait is over, or the time of the attempt.
        until: Instant,
        #[pin]
        state: State<S::Future, Req>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, Req> {
        Unsent { request: Option<Req>, stage: Stage },
        Sent { #[pin] future: F },
        Ended,
    }
}

/// What a request waits for before it is sent.
enum Stage {
    /// To be polled for the first time.
    First,
    /// The time of a retry that is paid for.
    Backoff(Withdrawal),
    /// The service.
    Ready,
}

/// The end of an attempt.
struct Ended<Res, Req> {
    result: Result<Res, BoxError>,
    /// Its request, if it was not sent.
    unsent: Option<Req>,
}

impl<S, P, Req> ResponseFuture<S, P, Req>
where
    S: Service<Req>,
    P: Replay<Req>,
{
    pub(crate) fn new(
        rules: Arc<P>,
        service: S,
        request: Req,
        kept: Option<P::Kept>,
        idempotent: bool,
    ) -> Self {
        Self {
            rules,
            call: Call::new(),
            attempts: Attempts {
                service,
                kept,
                progress: Progress {
                    made: 0,
                    retries: 0,
                    idempotent,
                },
                history: History::new(),
                until: Instant::NEVER,
                state: State::Unsent {
                    request: Some(request),
                    stage: Stage::First,
                },
            },
        }
    }
}

impl<S, R, K, Req> Future for ResponseFuture<S, Rules<R, K>, Req>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<Req>,
    K: Classify<S::Response>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (rules, mut attempts) = (&**this.rules, this.attempts);
        this.call
            .poll_joined(&rules.clock, cx, |cx| attempts.as_mut().poll(rules, cx))
    }
}

impl<S, Kept, Req> Attempts<S, Kept, Req>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
{
    fn poll<R, K>(
        mut self: Pin<&mut Self>,
        rules: &Rules<R, K>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, BoxError>>
    where
        R: Replay<Req, Kept = Kept>,
        K: Classify<S::Response>,
    {
        loop {
            let ended = ready!(self.as_mut().poll_attempt(rules, cx));
            match verdict(&rules.classify, &ended.result) {
                // After the head nothing is retried, so it is not waited for what the body will say.
                Verdict::Deferred => return Poll::Ready(ended.result),
                Verdict::Done(outcome) if outcome.is_success() => {
                    return Poll::Ready(ended.result);
                }
                Verdict::Done(outcome) => {
                    if let Some(last) = self.as_mut().failed(rules, outcome, ended) {
                        return Poll::Ready(last);
                    }
                }
            }
        }
    }

    /// Waits until it is time, readies the service, calls it, and waits for its answer.
    fn poll_attempt<R, K>(
        mut self: Pin<&mut Self>,
        rules: &Rules<R, K>,
        cx: &mut Context<'_>,
    ) -> Poll<Ended<S::Response, Req>> {
        loop {
            let mut this = self.as_mut().project();
            let (request, stage) = match this.state.as_mut().project() {
                StateProj::Unsent { request, stage } => (request, stage),
                StateProj::Sent { future } => match frame::observed(|| future.poll(cx)) {
                    Poll::Ready(result) => {
                        let result = result.map_err(Into::into);
                        return Poll::Ready(Ended {
                            result,
                            unsent: None,
                        });
                    }
                    Poll::Pending => return self.poll_time_up(rules),
                },
                StateProj::Ended => panic!("`ResponseFuture` polled after it was ready"),
            };
            match stage {
                Stage::Ready => match this.service.poll_ready(cx) {
                    Poll::Ready(Ok(())) => {
                        let request = request.take().expect("a request is called once");
                        let future = this.service.call(request);
                        this.state.set(State::Sent { future });
                    }
                    Poll::Ready(Err(error)) => {
                        let unsent = request.take();
                        // What failed to become ready must not be asked again; a clone of it may.
                        *this.service = this.service.clone();
                        let result = Err(error.into());
                        return Poll::Ready(Ended { result, unsent });
                    }
                    Poll::Pending => return self.poll_time_up(rules),
                },
                Stage::Backoff(_) if !frame::fired(*this.until) => {
                    frame::wake_at(*this.until);
                    return Poll::Pending;
                }
                Stage::First | Stage::Backoff(_) => {
                    let now = frame::now(&rules.clock);
                    match mem::replace(stage, Stage::Ready) {
                        Stage::Backoff(withdrawal) => {
                            withdrawal.spend();
                            frame::enter(Phase::Attempt, now);
                        }
                        _ => rules.budget.deposit(now),
                    }
                    this.progress.made += 1;
                    *this.until =
                        (rules.limits).attempt_ends(this.progress, now, frame::deadline());
                }
            }
        }
    }

    /// Gives the attempt up if its time is up, or else sees to it that it is polled then.
    fn poll_time_up<R, K>(
        self: Pin<&mut Self>,
        rules: &Rules<R, K>,
    ) -> Poll<Ended<S::Response, Req>> {
        let mut this = self.project();
        if *this.until == Instant::NEVER {
            return Poll::Pending;
        }
        if !frame::fired(*this.until) {
            frame::wake_at(*this.until);
            return Poll::Pending;
        }
        let unsent = match this.state.as_mut().project() {
            StateProj::Unsent { request, .. } => request.take(),
            _ => None,
        };
        frame::timing_out(|| this.state.set(State::Ended));
        let sent = match unsent {
            Some(_) => Sent::Never,
            None => Sent::Maybe,
        };
        let timeout = AttemptTimeout::new(rules.limits.per_try.unwrap_or_default(), sent);
        Poll::Ready(Ended {
            result: Err(timeout.into()),
            unsent,
        })
    }

    /// Prepares another attempt, or gives what the caller gets instead.
    #[cold]
    fn failed<R, K>(
        mut self: Pin<&mut Self>,
        rules: &Rules<R, K>,
        outcome: Outcome,
        ended: Ended<S::Response, Req>,
    ) -> Option<Result<S::Response, BoxError>>
    where
        R: Replay<Req, Kept = Kept>,
    {
        let Ended { result, unsent } = ended;
        let outcome = match unsent {
            Some(_) => outcome.never_sent(),
            None => outcome,
        };
        // What the attempt holds is released before there is another.
        self.as_mut().project().state.set(State::Ended);
        let error = result.as_ref().err();
        match self.as_mut().prepare(rules, outcome, unsent, error) {
            Ok(next) => {
                let mut this = self.project();
                this.history.note(outcome, error);
                this.state.set(next);
                None
            }
            Err(why) => Some(result.map_err(|last| self.give_up(rules, why, outcome, last))),
        }
    }

    /// The state in which another attempt is made, or why there is none.
    fn prepare<R, K>(
        self: Pin<&mut Self>,
        rules: &Rules<R, K>,
        outcome: Outcome,
        unsent: Option<Req>,
        error: Option<&BoxError>,
    ) -> Result<State<S::Future, Req>, Why>
    where
        R: Replay<Req, Kept = Kept>,
    {
        if error.is_some_and(|error| is_final(&**error)) {
            return Err(Why::NotRetryable);
        }
        let this = self.project();
        let now = frame::now(&rules.clock);
        let chance = || rules.rng.unit();
        let until = (rules.limits).next(this.progress, outcome, chance, now, frame::deadline())?;
        let request = unsent
            .or_else(|| rules.replay.again(this.kept.as_ref()?))
            .ok_or(Why::CannotRepeat)?;
        // Last, so that nobody pays for a retry that is not made.
        let withdrawal = rules.budget.withdraw(now).ok_or(Why::BudgetEmpty)?;
        frame::enter(Phase::Backoff, now);
        *this.until = until;
        Ok(State::Unsent {
            request: Some(request),
            stage: Stage::Backoff(withdrawal),
        })
    }

    /// The error for the caller: the attempt's own if a retry never came into question, else one that tells all.
    fn give_up<R, K>(
        self: Pin<&mut Self>,
        rules: &Rules<R, K>,
        why: Why,
        outcome: Outcome,
        last: BoxError,
    ) -> BoxError {
        let this = self.project();
        let never_meant = rules.limits.attempts.get() == 1
            || matches!(
                why,
                Why::NotRetryable | Why::NotIdempotent | Why::CannotRepeat
            );
        if this.progress.made == 1 && never_meant {
            return last;
        }
        let mut history = mem::replace(this.history, History::new());
        history.note(outcome, Some(&last));
        Exhausted::new(history, why, outcome, last).into()
    }
}

/// What `result` means.
fn verdict<Res, K: Classify<Res>>(classify: &K, result: &Result<Res, BoxError>) -> Verdict {
    let verdict = classify.classify(result.as_ref().map_err(|error| &**error));
    match (verdict.into(), result) {
        // An error has no body that could decide.
        (Verdict::Deferred, Err(error)) => ClassifyErrors::error(&**error).into(),
        (verdict, _) => verdict,
    }
}

impl<S, P, Req> fmt::Debug for ResponseFuture<S, P, Req>
where
    S: Service<Req>,
    P: Replay<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("progress", &self.attempts.progress)
            .field("history", &self.attempts.history)
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}
