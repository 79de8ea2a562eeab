//! When another attempt is made, and how long one may take: no clock, no chance, no I/O.

use std::{num::NonZeroU32, time::Duration};

use tower_mesh_core::{Instant, Outcome, Pushback, Sent};

use crate::{backoff::Backoff, error::Why};

/// A wait that an endpoint asks for is not waited for if it is longer: Envoy's `max_interval`.
pub(crate) const LONGEST_PUSHBACK: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// With the first.
    pub(crate) attempts: NonZeroU32,
    pub(crate) backoff: Backoff,
    pub(crate) per_try: Option<Duration>,
}

/// How far a call has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Attempts begun.
    pub(crate) made: u32,
    /// Retries since the backoff began, or began anew.
    pub(crate) retries: u32,
}

impl Limits {
    /// When the next attempt begins after one with this `outcome`, or why there is none.
    pub(crate) fn next(
        &self,
        progress: &mut Progress,
        outcome: Outcome,
        idempotent: impl FnOnce() -> bool,
        chance: impl FnOnce() -> f64,
        now: Instant,
        deadline: Option<Instant>,
    ) -> Result<Instant, Why> {
        if !outcome.is_failure() {
            return Err(Why::NotRetryable);
        }
        if outcome.pushback() == Pushback::Stop {
            return Err(Why::Pushback);
        }
        if progress.made >= self.attempts.get() {
            return Err(Why::AttemptsUsedUp);
        }
        if outcome.sent() == Sent::Maybe && !idempotent() {
            return Err(Why::NotIdempotent);
        }
        let wait = self.wait(progress, outcome.pushback(), chance);
        match (now + wait, deadline) {
            (at, Some(deadline)) if at >= deadline => Err(Why::Deadline),
            _ if wait > LONGEST_PUSHBACK => Err(Why::Pushback),
            (at, _) => Ok(at),
        }
    }

    fn wait(
        &self,
        progress: &mut Progress,
        pushback: Pushback,
        chance: impl FnOnce() -> f64,
    ) -> Duration {
        match pushback {
            // "At once", as a `Retry-After` in the past says, gets no rest from an endpoint that says it to everybody:
            // then the backoff goes on as if nothing had been said.
            Pushback::After(wait) if !wait.is_zero() => {
                progress.retries = 0;
                wait
            }
            _ => {
                progress.retries = progress.retries.saturating_add(1);
                self.backoff.wait(progress.retries, chance())
            }
        }
    }

    /// When the attempt of this number, which begins now, has to have answered, or never if that is not for this layer to say: what the
    /// deadline ends sooner anyway, and the last attempt, which has all the time that is left.
    pub(crate) fn attempt_ends(
        &self,
        made: u32,
        now: Instant,
        deadline: impl FnOnce() -> Option<Instant>,
    ) -> Instant {
        let Some(per_try) = self.per_try else {
            return Instant::NEVER;
        };
        match (now + per_try, deadline()) {
            (_, Some(_)) if made >= self.attempts.get() => Instant::NEVER,
            (at, Some(deadline)) if at >= deadline => Instant::NEVER,
            (at, _) => at,
        }
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;
    use crate::backoff::Jitter;

    const NOW: Instant = Instant::from_nanos(1 << 60);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Three attempts, and waits of 100 ms, 200 ms.
    fn limits() -> Limits {
        Limits {
            attempts: const { NonZeroU32::new(3).unwrap() },
            backoff: Backoff::exponential(ms(100), ms(1_000)).jitter(Jitter::None),
            per_try: Some(ms(1_000)),
        }
    }

    fn progress(made: u32) -> Progress {
        Progress {
            made,
            retries: made - 1,
        }
    }

    fn next(made: u32, outcome: Outcome, deadline: Option<Duration>) -> Result<Duration, Why> {
        let deadline = deadline.map(|after| NOW + after);
        limits()
            .next(&mut progress(made), outcome, || true, || 0.5, NOW, deadline)
            .map(|at| at.since(NOW))
    }

    #[test]
    fn failures_overload_and_timeouts_are_retried_nothing_else() {
        for outcome in [Outcome::failure(), Outcome::overload(), Outcome::timeout()] {
            assert_eq!(next(1, outcome, None), Ok(ms(100)));
            assert_eq!(next(2, outcome, None), Ok(ms(200)));
            assert_eq!(next(3, outcome, None), Err(Why::AttemptsUsedUp));
        }
        for outcome in [
            Outcome::success(),
            Outcome::neutral(),
            Outcome::neutral().never_sent(),
        ] {
            assert_eq!(next(1, outcome, None), Err(Why::NotRetryable));
        }
    }

    // scenario 9
    #[test]
    fn what_is_not_idempotent_is_retried_only_if_it_was_surely_not_sent() {
        let mut once = progress(1);
        let mut next = |outcome| {
            let next = limits().next(&mut once, outcome, || false, || 0.5, NOW, None);
            next.is_ok()
        };
        assert!(next(Outcome::failure().never_sent()), "connection refused");
        assert!(!next(Outcome::failure()), "503 after bytes were sent");
        assert!(!next(Outcome::timeout()));
    }

    // scenario 7
    #[test]
    fn pushback_is_waited_for_exactly_and_the_backoff_begins_anew() {
        let after = |wait| Outcome::overload().with_pushback(Pushback::After(wait));
        let limits = Limits {
            attempts: NonZeroU32::MAX,
            ..limits()
        };
        let mut progress = progress(2);
        let mut next = |outcome| limits.next(&mut progress, outcome, || true, || 0.5, NOW, None);
        assert_eq!(next(after(ms(200))), Ok(NOW + ms(200)));
        assert_eq!(
            next(Outcome::failure()),
            Ok(NOW + ms(100)),
            "the first step"
        );
        assert_eq!(next(Outcome::failure()), Ok(NOW + ms(200)), "the second");
        let stop = Outcome::failure().with_pushback(Pushback::Stop);
        assert_eq!(next(stop), Err(Why::Pushback));
        assert_eq!(
            next(after(ms(600_000))),
            Err(Why::Pushback),
            "nobody waits for 10 min"
        );
        assert_eq!(next(after(Duration::MAX)), Err(Why::Pushback));
    }

    // performance (f) 18
    #[test]
    fn who_asks_to_come_back_at_once_gets_the_backoff() {
        let at_once = Outcome::overload().with_pushback(Pushback::After(Duration::ZERO));
        assert_eq!(next(1, at_once, None), Ok(ms(100)));
        assert_eq!(next(2, at_once, None), Ok(ms(200)));
    }

    // scenarios 7 and 8
    #[test]
    fn a_wait_that_would_end_at_the_deadline_is_not_begun() {
        let after = |wait| Outcome::overload().with_pushback(Pushback::After(wait));
        assert_eq!(next(1, Outcome::failure(), Some(ms(101))), Ok(ms(100)));
        assert_eq!(
            next(1, Outcome::failure(), Some(ms(100))),
            Err(Why::Deadline)
        );
        assert_eq!(
            next(1, after(ms(600_000)), Some(ms(5_000))),
            Err(Why::Deadline)
        );
    }

    // scenario 8
    #[test]
    fn an_attempt_gets_its_time_or_what_the_call_has_left() {
        let ends = |made, deadline: Option<Duration>| {
            limits().attempt_ends(made, NOW, || deadline.map(|after| NOW + after))
        };
        assert_eq!(ends(1, None), NOW + ms(1_000));
        assert_eq!(ends(1, Some(ms(5_000))), NOW + ms(1_000));
        assert_eq!(
            ends(1, Some(ms(300))),
            Instant::NEVER,
            "the deadline layer's"
        );
        assert_eq!(ends(3, Some(ms(5_000))), Instant::NEVER, "all that is left");
        assert_eq!(ends(3, None), NOW + ms(1_000), "else nothing would end it");
    }
}
