use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower_mesh_core::{
    BoxError, Classify, Instant, Outcome, Replay, Verdict,
    frame::{self, Framing, Own},
    rare::Rare,
};
use tower_service::Service;

use super::{
    plan::{Role, is_anyone_else},
    service::HedgeRules,
};
use crate::{
    budget::Withdrawal,
    error::{Exhausted, History, Why, is_final},
};

pin_project! {
    /// The future of [`Hedge`](crate::Hedge).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops all attempts that run; what it took out of the budget and has not used goes back.
    pub struct HedgeFuture<S, P, Req, G = Own>
    where
        S: Service<Req>,
        P: Replay<Req>,
        G: Framing,
    {
        rules: Arc<P>,
        #[pin]
        call: G::Call,
        #[pin]
        attempts: Attempts<S, P::Kept, S::Future>,
    }
}

pin_project! {
    /// The attempts of one call.
    struct Attempts<S, Kept, F> {
        // What other attempts are made with; nothing if the call is not to be hedged.
        spare: Option<(S, Kept)>,
        // Whether its latency says something of those that may be hedged.
        learns: bool,
        // Never before the first poll, as until then nothing is known of the time.
        begun: Instant,
        // When another attempt is to be made.
        next: Instant,
        // None when it has ended.
        #[pin]
        first: Option<F>,
        // What only a call needs that is hedged or has failed, out of the way of those that are not.
        others: Rare<Others<F>>,
    }
}

/// What is known of a call that is hedged, or has failed.
struct Others<F> {
    running: Vec<Pin<Box<F>>>,
    sent: u32,
    /// What the attempt is paid with that is waited for, when no other is out.
    withdrawal: Option<Withdrawal>,
    /// Why no further attempt is made, once something has been said that holds for all.
    stopped: Option<Why>,
    history: History,
}

impl<F> Default for Others<F> {
    fn default() -> Self {
        Self {
            running: Vec::new(),
            sent: 0,
            withdrawal: None,
            stopped: None,
            history: History::default(),
        }
    }
}

/// Which attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    First,
    Other(usize),
}

impl<S, P, Req, G> HedgeFuture<S, P, Req, G>
where
    S: Service<Req>,
    P: Replay<Req>,
    G: Framing,
{
    #[inline]
    pub(super) fn new(
        rules: Arc<P>,
        first: S::Future,
        spare: Option<(S, P::Kept)>,
        learns: bool,
    ) -> Self {
        Self {
            rules,
            call: G::Call::default(),
            attempts: Attempts {
                spare,
                learns,
                begun: Instant::NEVER,
                next: Instant::NEVER,
                first: Some(first),
                others: Rare::none(),
            },
        }
    }
}

impl<S, R, K, Req, G> Future for HedgeFuture<S, HedgeRules<R, K>, Req, G>
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

impl<S, Kept, F> Attempts<S, Kept, F> {
    fn poll<R, K, Req>(
        mut self: Pin<&mut Self>,
        rules: &HedgeRules<R, K>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, BoxError>>
    where
        S: Service<Req, Future = F> + Clone,
        F: Future<Output = Result<S::Response, S::Error>>,
        S::Error: Into<BoxError>,
        R: Replay<Req, Kept = Kept>,
        K: Classify<S::Response>,
    {
        if self.begun == Instant::NEVER {
            self.as_mut().begin(rules);
        }
        if let Some(first) = self.as_mut().project().first.as_pin_mut()
            && let Poll::Ready(result) = frame::observed(|| first.poll(cx))
        {
            let result = result.map_err(Into::into);
            match rules.classify.verdict(&result) {
                Verdict::Done(outcome) if !outcome.is_success() => {
                    let failed = self.as_mut().failed(rules, Which::First, outcome, result);
                    if failed.is_ready() {
                        return failed;
                    }
                }
                // After the head nothing is sent again, so it is not waited for what the body will say.
                _ => {
                    self.answered(rules, Which::First);
                    return Poll::Ready(result);
                }
            }
        }
        if self.others.as_ref().is_none() && !frame::fired(self.next) {
            assert!(
                self.first.is_some(),
                "`HedgeFuture` polled after it was ready"
            );
            frame::wake_at(self.next);
            return Poll::Pending;
        }
        self.poll_others(rules, cx)
    }

    /// Notes when the call begins, and when it is to be hedged.
    fn begin<R, K>(self: Pin<&mut Self>, rules: &HedgeRules<R, K>) {
        let this = self.project();
        let now = frame::now(&rules.clock);
        if rules.plan.role == Role::Alone {
            rules.budget.deposit(now);
        }
        *this.begun = now;
        // Asked also for those that cannot be hedged yet: somebody has to look what has been learned.
        if let (true, Some(delay)) = (*this.learns, rules.timing.delay(now))
            && this.spare.is_some()
        {
            *this.next = now + delay;
        }
    }

    /// The call is answered: ends all its other attempts.
    fn answered<R, K>(self: Pin<&mut Self>, rules: &HedgeRules<R, K>, by: Which) {
        let mut this = self.project();
        // Before the caller has the answer, so that what they hold is free for what it does next.
        this.first.set(None);
        if let Some(others) = this.others.take() {
            drop(others);
            if by != Which::First {
                rules.timing.won.fetch_add(1, Relaxed);
            }
        }
        if *this.learns {
            let now = || frame::now(&rules.clock);
            rules.timing.record(*this.begun, now);
        }
    }

    /// Polls all attempts but the first, and makes the next when it is time.
    #[cold]
    fn poll_others<R, K, Req>(
        mut self: Pin<&mut Self>,
        rules: &HedgeRules<R, K>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, BoxError>>
    where
        S: Service<Req, Future = F> + Clone,
        F: Future<Output = Result<S::Response, S::Error>>,
        S::Error: Into<BoxError>,
        R: Replay<Req, Kept = Kept>,
        K: Classify<S::Response>,
    {
        let mut nth = 0;
        loop {
            let others = self.as_mut().project().others.get_or_insert_default();
            let Some(other) = others.running.get_mut(nth) else {
                // All that run are pending. The new one, if one is made now, is polled next.
                if frame::fired(self.next) && self.as_mut().send(rules) {
                    continue;
                }
                frame::wake_at(self.next);
                return Poll::Pending;
            };
            let Poll::Ready(result) = frame::observed(|| other.as_mut().poll(cx)) else {
                nth += 1;
                continue;
            };
            let result = result.map_err(Into::into);
            let which = Which::Other(nth);
            match rules.classify.verdict(&result) {
                Verdict::Done(outcome) if !outcome.is_success() => {
                    let failed = self.as_mut().failed(rules, which, outcome, result);
                    if failed.is_ready() {
                        return failed;
                    }
                }
                _ => {
                    self.answered(rules, which);
                    return Poll::Ready(result);
                }
            }
        }
    }

    /// An attempt has failed: waits for the others, or for the next, or gives the caller what this one has brought.
    #[cold]
    fn failed<Res, R, K>(
        self: Pin<&mut Self>,
        rules: &HedgeRules<R, K>,
        which: Which,
        outcome: Outcome,
        result: Result<Res, BoxError>,
    ) -> Poll<Result<Res, BoxError>> {
        let mut this = self.project();
        let others = this.others.get_or_insert_default();
        match which {
            Which::First => {
                this.first.set(None);
                // What failed says nothing of how long an answer takes.
                *this.learns = false;
            }
            Which::Other(nth) => drop(others.running.remove(nth)),
        }
        let error = result.as_ref().err();
        others.history.note(outcome, error);
        let now = frame::now(&rules.clock);
        let next = match (others.stopped, error) {
            (Some(why), _) => Err(why),
            (None, Some(error)) if is_final(&**error) => Err(Why::NotRetryable),
            _ => rules.plan.after_failure(outcome, now, *this.next),
        };
        others.stopped = next.err();
        if this.first.is_some() || !others.running.is_empty() {
            *this.next = next.unwrap_or(Instant::NEVER);
            return Poll::Pending;
        }
        let reserved = match next {
            Ok(_) if rules.plan.role == Role::BeneathRetry => Err(Why::LeftToRetry),
            Ok(next) => reserve(rules, this.spare, others.sent, now, next).map(|paid| (next, paid)),
            Err(why) => Err(why),
        };
        match reserved {
            Ok((next, withdrawal)) => {
                others.withdrawal = Some(withdrawal);
                *this.next = next;
                Poll::Pending
            }
            Err(why) => {
                let history = std::mem::take(&mut others.history);
                this.others.take();
                Poll::Ready(result.map_err(|last| give_up(history, why, outcome, last)))
            }
        }
    }

    /// Makes another attempt now, if it may be made.
    fn send<R, K, Req>(self: Pin<&mut Self>, rules: &HedgeRules<R, K>) -> bool
    where
        S: Service<Req, Future = F> + Clone,
        R: Replay<Req, Kept = Kept>,
    {
        let this = self.project();
        let others = this.others.get_or_insert_default();
        let now = frame::now(&rules.clock);
        // Whatever comes of it, who is refused once is not asked again.
        *this.next = Instant::NEVER;
        let paid = match others.withdrawal.take() {
            Some(withdrawal) => Ok(withdrawal),
            None => reserve(rules, this.spare, others.sent, now, now),
        };
        let (Ok(withdrawal), Some((service, kept))) = (paid, this.spare.as_ref()) else {
            return false;
        };
        let Some(request) = rules.replay.again(kept) else {
            return false;
        };
        let future = service.clone().call(request);
        withdrawal.spend();
        rules.timing.sent.fetch_add(1, Relaxed);
        others.sent += 1;
        others.running.push(Box::pin(future));
        if let Some(delay) = rules.timing.delay(now)
            && others.sent + 1 < rules.plan.attempts.get()
        {
            *this.next = now + delay;
        }
        true
    }
}

/// Pays for another attempt, `sent` after the first, that is to be made at `at`.
fn reserve<R, K, Spare>(
    rules: &HedgeRules<R, K>,
    spare: &Option<Spare>,
    sent: u32,
    now: Instant,
    at: Instant,
) -> Result<Withdrawal, Why> {
    if spare.is_none() {
        return Err(Why::CannotRepeat);
    }
    if !rules.plan.has_room(sent + 1, frame::spent(now).attempt) {
        return Err(Why::AttemptsUsedUp);
    }
    if frame::deadline().is_some_and(|deadline| at >= deadline) {
        return Err(Why::Deadline);
    }
    if let Some(endpoints) = &rules.endpoints
        && !is_anyone_else(endpoints, now)
    {
        return Err(Why::NowhereElse);
    }
    // Last, so that nobody pays for an attempt that is not made.
    rules.budget.withdraw_earned(now).ok_or_else(|| {
        rules.timing.refused.fetch_add(1, Relaxed);
        Why::BudgetEmpty
    })
}

/// The error for the caller: the attempt's own if another never came into question, else one that tells all.
fn give_up(history: History, why: Why, outcome: Outcome, last: BoxError) -> BoxError {
    let never_meant = matches!(
        why,
        Why::NotRetryable | Why::CannotRepeat | Why::LeftToRetry
    );
    if history.made() == 1 && never_meant {
        return last;
    }
    Exhausted::new(history, why, outcome, last).into()
}

impl<S, P, Req, G> fmt::Debug for HedgeFuture<S, P, Req, G>
where
    S: Service<Req>,
    P: Replay<Req>,
    G: Framing,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sent = self
            .attempts
            .others
            .as_ref()
            .map_or(0, |others| others.sent);
        f.debug_struct("HedgeFuture")
            .field("hedges", &sent)
            .finish_non_exhaustive()
    }
}
