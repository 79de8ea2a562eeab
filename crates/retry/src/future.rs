use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_mesh_core::{
    BoxError, Classify, Instant, Outcome, Replay, Sent, Verdict,
    frame::{self, Framing, Observed, Own, Phase},
    rare::Rare,
    tried,
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
    pub struct ResponseFuture<S, P, Req, G = Own>
    where
        S: Service<Req>,
        P: Replay<Req>,
        G: Framing,
    {
        rules: Arc<P>,
        #[pin]
        call: G::Call,
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
        // Attempts begun; none before the first poll, as until then nothing is known of the time.
        made: u32,
        // When the wait is over, or the time of the attempt.
        until: Instant,
        // What only a call that failed needs, out of the way of those that do not.
        failed: Rare<Failed>,
        #[pin]
        state: State<S::Future, Req>,
    }
}

pin_project! {
    #[project = StateProj]
    pub(crate) enum State<F, Req> {
        Sent { #[pin] future: F },
        Unsent { request: Option<Req>, waits: WaitsFor },
        Ended,
    }
}

/// What a request waits for before it is sent.
#[derive(Clone, Copy)]
pub(crate) enum WaitsFor {
    /// The time of a retry.
    Backoff,
    /// The service.
    Readiness,
}

/// What is known of a call that has failed before.
#[derive(Default)]
struct Failed {
    history: History,
    /// Retries since the backoff began, or began anew.
    retries: u32,
    /// What the retry that is waited for is paid with.
    withdrawal: Option<Withdrawal>,
}

impl<S, P, Req, G> ResponseFuture<S, P, Req, G>
where
    S: Service<Req>,
    P: Replay<Req>,
    G: Framing,
{
    #[inline]
    pub(crate) fn new(
        rules: Arc<P>,
        service: S,
        kept: Option<P::Kept>,
        first: State<S::Future, Req>,
    ) -> Self {
        Self {
            rules,
            call: G::Call::default(),
            attempts: Attempts {
                service,
                kept,
                made: 0,
                until: Instant::NEVER,
                failed: Rare::none(),
                state: first,
            },
        }
    }
}

impl<F, Req> State<F, Req> {
    /// The service has been called.
    pub(crate) fn sent(future: F) -> Self {
        Self::Sent { future }
    }

    /// The service has to be made ready.
    pub(crate) fn unsent(request: Req) -> Self {
        Self::Unsent {
            request: Some(request),
            waits: WaitsFor::Readiness,
        }
    }

    /// The request, if it has not been sent.
    fn take_unsent(self: Pin<&mut Self>) -> Option<Req> {
        match self.project() {
            StateProj::Unsent { request, .. } => request.take(),
            _ => None,
        }
    }
}

impl<S, R, K, Req, G> Future for ResponseFuture<S, Rules<R, K>, Req, G>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<Req>,
    K: Classify<S::Response>,
    G: Framing,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (rules, mut attempts) = (&**this.rules, this.attempts);
        G::poll(this.call, &rules.clock, cx, |cx| {
            attempts.as_mut().poll(rules, cx)
        })
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
        if self.made == 0 {
            let now = frame::now(&rules.clock);
            rules.budget.deposit(now);
            self.as_mut().begin(rules, now);
        }
        let error = match ready!(self.as_mut().poll_sent(rules, cx)) {
            Err(error) => error,
            Ok(()) => {
                let StateProj::Sent { future } = self.as_mut().project().state.project() else {
                    panic!("`ResponseFuture` polled after it was ready");
                };
                let observed = Observed::begin();
                match future.poll(cx) {
                    Poll::Ready(Ok(response)) => {
                        observed.completed();
                        // Here and not below, where it would meet errors: so it is moved once.
                        return match lost(rules.classify.classify(Ok(&response)).into()) {
                            None => Poll::Ready(Ok(response)),
                            Some(outcome) => self.failed(rules, outcome, Ok(response)),
                        };
                    }
                    Poll::Ready(Err(error)) => {
                        observed.completed();
                        error.into()
                    }
                    Poll::Pending => ready!(self.as_mut().poll_time(rules)),
                }
            }
        };
        let result = Err(error);
        match lost(rules.classify.verdict(&result)) {
            None => Poll::Ready(result),
            Some(outcome) => self.failed(rules, outcome, result),
        }
    }

    /// Waits until it is time, readies the service, and calls it.
    ///
    /// If it fails before it has called the service, the request is still there.
    fn poll_sent<R, K>(
        mut self: Pin<&mut Self>,
        rules: &Rules<R, K>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>> {
        if let StateProj::Unsent { waits, .. } = self.as_mut().project().state.project() {
            match waits {
                WaitsFor::Backoff => ready!(self.as_mut().poll_backoff(rules)),
                WaitsFor::Readiness => {}
            }
            match self.as_mut().project().service.poll_ready(cx) {
                Poll::Ready(Ok(())) => self.as_mut().send(),
                Poll::Ready(Err(error)) => {
                    self.unready();
                    return Poll::Ready(Err(error.into()));
                }
                Poll::Pending => return self.poll_time(rules).map(Err),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Counts an attempt that begins now, and its time.
    fn begin<R, K>(self: Pin<&mut Self>, rules: &Rules<R, K>, now: Instant) {
        let this = self.project();
        *this.made += 1;
        *this.until = (rules.limits).attempt_ends(*this.made, now, frame::deadline);
        // For the other side, which should work no longer.
        frame::attempt_ends(*this.until);
    }

    /// Waits for the time of a retry, and begins it.
    #[cold]
    fn poll_backoff<R, K>(mut self: Pin<&mut Self>, rules: &Rules<R, K>) -> Poll<()> {
        let this = self.as_mut().project();
        if !frame::fired(*this.until) {
            frame::wake_at(*this.until);
            return Poll::Pending;
        }
        let now = frame::now(&rules.clock);
        frame::enter(Phase::Attempt, now);
        let failed = this.failed.as_mut();
        if let Some(withdrawal) = failed.and_then(|failed| failed.withdrawal.take()) {
            withdrawal.spend();
        }
        if let StateProj::Unsent { waits, .. } = this.state.project() {
            *waits = WaitsFor::Readiness;
        }
        self.begin(rules, now);
        Poll::Ready(())
    }

    /// Calls the service, which is ready.
    fn send(self: Pin<&mut Self>) {
        let mut this = self.project();
        if let Some(request) = this.state.as_mut().take_unsent() {
            let future = this.service.call(request);
            this.state.set(State::Sent { future });
        }
    }

    #[cold]
    fn unready(self: Pin<&mut Self>) {
        let this = self.project();
        // What failed to become ready must not be asked again; a clone of it may.
        *this.service = this.service.clone();
    }

    /// Sees to it that it is polled when the time of the attempt is up, and gives the attempt up if it is.
    fn poll_time<R, K>(self: Pin<&mut Self>, rules: &Rules<R, K>) -> Poll<BoxError> {
        let mut this = self.project();
        if !frame::fired(*this.until) {
            frame::wake_at(*this.until);
            return Poll::Pending;
        }
        let sent = match this.state.as_mut().project() {
            StateProj::Unsent { .. } => Sent::Never,
            StateProj::Sent { .. } | StateProj::Ended => {
                frame::timing_out(|| this.state.set(State::Ended));
                Sent::Maybe
            }
        };
        let timeout = AttemptTimeout::new(rules.limits.per_try.unwrap_or_default(), sent);
        Poll::Ready(timeout.into())
    }

    /// Waits for another attempt, or gives the caller what the last one brought.
    #[cold]
    fn failed<R, K>(
        mut self: Pin<&mut Self>,
        rules: &Rules<R, K>,
        outcome: Outcome,
        result: Result<S::Response, BoxError>,
    ) -> Poll<Result<S::Response, BoxError>>
    where
        R: Replay<Req, Kept = Kept>,
    {
        let unsent = self.as_mut().project().state.take_unsent();
        let outcome = match unsent {
            Some(_) => outcome.never_sent(),
            None => outcome,
        };
        let error = result.as_ref().err();
        match self.as_mut().prepare(rules, outcome, unsent, error) {
            Ok(next) => {
                let mut this = self.project();
                this.state.set(next);
                // However short the wait is: the frame polls again at once when it is over.
                frame::wake_at(*this.until);
                Poll::Pending
            }
            Err(why) => {
                self.as_mut().project().state.set(State::Ended);
                let never_meant = self.never_meant(rules, why);
                if !never_meant {
                    tried::note();
                }
                Poll::Ready(match result {
                    Err(last) if !never_meant => Err(self.give_up(why, outcome, last)),
                    result => result,
                })
            }
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
        let mut progress = Progress {
            made: *this.made,
            retries: this.failed.as_ref().map_or(0, |failed| failed.retries),
        };
        let mut request = unsent;
        let kept = this.kept.as_ref();
        // Asked of what is sent next, since only a call that failed needs to know.
        let idempotent = || {
            request = kept.and_then(|kept| rules.replay.again(kept));
            (request.as_ref()).is_none_or(|request| rules.replay.is_idempotent(request))
        };
        let chance = || rules.rng.unit();
        let deadline = frame::deadline();
        let until =
            (rules.limits).next(&mut progress, outcome, idempotent, chance, now, deadline)?;
        let request = request
            .or_else(|| rules.replay.again(kept?))
            .ok_or(Why::CannotRepeat)?;
        // Last, so that nobody pays for a retry that is not made.
        let withdrawal = rules.budget.withdraw(now).ok_or(Why::BudgetEmpty)?;
        frame::enter(Phase::Backoff, now);
        let failed = this.failed.get_or_insert_default();
        failed.history.note(outcome, error);
        failed.retries = progress.retries;
        failed.withdrawal = Some(withdrawal);
        *this.until = until;
        Ok(State::Unsent {
            request: Some(request),
            waits: WaitsFor::Backoff,
        })
    }

    /// Whether a retry never came into question: then the error is the attempt's own.
    fn never_meant<R, K>(&self, rules: &Rules<R, K>, why: Why) -> bool {
        let never_meant = rules.limits.attempts.get() == 1
            || matches!(
                why,
                Why::NotRetryable | Why::NotIdempotent | Why::CannotRepeat
            );
        self.made == 1 && never_meant
    }

    /// The error for the caller, which tells all.
    fn give_up(self: Pin<&mut Self>, why: Why, outcome: Outcome, last: BoxError) -> BoxError {
        let this = self.project();
        let mut history = this.failed.take().unwrap_or_default().history;
        history.note(outcome, Some(&last));
        Exhausted::new(history, why, outcome, last).into()
    }
}

/// What has become of an attempt that is lost. After the head nothing is retried, so it is not waited for what the body will
/// say.
fn lost(verdict: Verdict) -> Option<Outcome> {
    match verdict {
        Verdict::Done(outcome) if !outcome.is_success() => Some(outcome),
        Verdict::Done(_) | Verdict::Deferred => None,
    }
}

impl<S, P, Req, G> fmt::Debug for ResponseFuture<S, P, Req, G>
where
    S: Service<Req>,
    P: Replay<Req>,
    G: Framing,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("made", &self.attempts.made)
            .finish_non_exhaustive()
    }
}
