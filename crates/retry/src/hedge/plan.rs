//! When another attempt is made: no clock, no I/O.

use std::num::NonZeroU32;

use tower_mesh_core::{Endpoints, Instant, Outcome, Pushback, frame};

use crate::{error::Why, limits::LONGEST_PUSHBACK};

#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// With the first.
    pub(super) attempts: NonZeroU32,
    pub(super) role: Role,
}

/// Whose business a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Its own: after a failure the next attempt is made at once.
    Alone,
    /// That of the retry above.
    BeneathRetry,
}

impl Plan {
    /// When the next attempt is made after one has failed; `next` is when it would have been made otherwise.
    pub(super) fn after_failure(
        self,
        outcome: Outcome,
        now: Instant,
        next: Instant,
    ) -> Result<Instant, Why> {
        if !outcome.is_failure() {
            return Err(Why::NotRetryable);
        }
        let at_once = match self.role {
            Role::Alone => now,
            Role::BeneathRetry => next,
        };
        match outcome.pushback() {
            Pushback::Stop => Err(Why::Pushback),
            Pushback::After(wait) if wait > LONGEST_PUSHBACK => Err(Why::Pushback),
            Pushback::After(wait) => Ok(at_once.max(now + wait)),
            _ => Ok(at_once),
        }
    }

    /// Whether a call of which `own` attempts are this hedge's may have another one, when `all` were made in all.
    ///
    /// A retry is not hedged: so attempts add up, and do not multiply.
    pub(super) fn has_room(self, own: u32, all: u32) -> bool {
        own < self.attempts.get() && (self.role == Role::Alone || all <= own)
    }
}

/// When so many endpoints in a row will not do, most are out, and more load is not what they need.
const LOOKS: usize = 64;

/// Whether some endpoint would take a hedge: it is open, so that the hedge is no probe, and the call was not sent there.
pub(super) fn is_anyone_else(endpoints: &Endpoints, now: Instant) -> bool {
    let set = endpoints.current();
    let all = set.endpoints();
    // Anywhere: it is not chosen here, only looked for.
    let start = now.as_nanos() as usize % all.len().max(1);
    let mut looks = all[start..].iter().chain(&all[..start]).take(LOOKS);
    looks.any(|endpoint| {
        let vitals = endpoint.vitals();
        endpoint.weight().get() > 0 && vitals.gate().is_open() && !frame::was_tried(vitals.key())
    })
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Instant = Instant::from_nanos(1 << 60);
    const MS: Duration = Duration::from_millis(1);

    fn plan(role: Role) -> Plan {
        Plan {
            attempts: const { NonZeroU32::new(3).unwrap() },
            role,
        }
    }

    #[test]
    fn alone_it_goes_on_at_once_and_beneath_a_retry_when_it_is_time() {
        let later = NOW + 50 * MS;
        for outcome in [Outcome::failure(), Outcome::overload(), Outcome::timeout()] {
            let after = |role| plan(role).after_failure(outcome, NOW, later);
            assert_eq!(after(Role::Alone), Ok(NOW));
            assert_eq!(after(Role::BeneathRetry), Ok(later));
        }
        let neutral = plan(Role::Alone).after_failure(Outcome::neutral(), NOW, later);
        assert_eq!(neutral, Err(Why::NotRetryable));
    }

    // A6, scenario 7
    #[test]
    fn pushback_is_waited_for_and_a_stop_is_a_stop() {
        let after = |pushback| {
            let outcome = Outcome::overload().with_pushback(pushback);
            plan(Role::Alone).after_failure(outcome, NOW, NOW + 50 * MS)
        };
        assert_eq!(after(Pushback::After(200 * MS)), Ok(NOW + 200 * MS));
        assert_eq!(after(Pushback::After(Duration::ZERO)), Ok(NOW));
        assert_eq!(after(Pushback::After(600_000 * MS)), Err(Why::Pushback));
        assert_eq!(after(Pushback::Stop), Err(Why::Pushback));
    }

    #[test]
    fn a_retry_is_not_hedged() {
        assert!(plan(Role::BeneathRetry).has_room(1, 1));
        assert!(!plan(Role::BeneathRetry).has_room(1, 2));
        assert!(plan(Role::Alone).has_room(1, 2), "a call within a call");
        assert!(plan(Role::Alone).has_room(2, 2));
        assert!(!plan(Role::Alone).has_room(3, 3));
    }
}
