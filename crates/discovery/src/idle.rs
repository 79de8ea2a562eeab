//! Whether a service has been out of use for long enough to be forgotten.

use std::time::Duration;

use tower_mesh_core::Instant;

/// Looks now and then whether anybody holds the service; that somebody lets go of it is not told.
#[derive(Debug)]
pub(crate) struct Idle {
    /// When it was first seen that nobody holds it.
    since: Option<Instant>,
    next_look: Instant,
}

/// How often it looks at most.
const LEAST: Duration = Duration::from_secs(1);

impl Idle {
    pub(crate) fn new(limit: Duration, now: Instant) -> Self {
        Self {
            since: None,
            next_look: now + interval(limit),
        }
    }

    pub(crate) const fn next_look(&self) -> Instant {
        self.next_look
    }

    /// The limit may have become shorter: looks earlier, if so.
    pub(crate) fn set_limit(&mut self, limit: Duration, now: Instant) {
        self.next_look = self.next_look.min(now + interval(limit));
    }

    /// Looks: whether nobody has held it or asked for it (last at `used`) for as long as `limit`.
    pub(crate) fn look(
        &mut self,
        held: bool,
        used: Instant,
        limit: Duration,
        now: Instant,
    ) -> bool {
        if now < self.next_look {
            return false;
        }
        self.next_look = now + interval(limit);
        if held {
            self.since = None;
            return false;
        }
        let over = (*self.since.get_or_insert(now)).max(used) + limit;
        self.next_look = self.next_look.min(over).max(now + LEAST);
        now >= over
    }
}

/// Four looks within the limit: who holds it in between and for shorter is not seen, but is known to have asked.
fn interval(limit: Duration) -> Duration {
    (limit / 4).max(LEAST)
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1 << 60);
    const LIMIT: Duration = Duration::from_secs(60);

    /// When it is forgotten, if it is held and asked for like this.
    fn forgotten(held: impl Fn(u64) -> bool, used: u64) -> Option<u64> {
        let mut idle = Idle::new(LIMIT, START);
        let at = |seconds| START + Duration::from_secs(seconds);
        (0..1_000).find(|now| idle.look(held(*now), at(used.min(*now)), LIMIT, at(*now)))
    }

    #[test]
    fn it_is_forgotten_when_it_was_out_of_use_for_the_limit_and_a_quarter_at_most() {
        assert_eq!(forgotten(|_| false, 0), Some(75));
        assert_eq!(forgotten(|_| true, 0), None);
        let last_held = 100;
        let when = forgotten(|now| now <= last_held, 0).unwrap();
        assert!((last_held + 60..=last_held + 75).contains(&when), "{when}");
    }

    #[test]
    fn who_asks_or_holds_it_for_a_while_keeps_it() {
        assert!(forgotten(|_| false, 70).unwrap() >= 130);
        // Held between the first look and the time at which it would have been forgotten.
        assert!(forgotten(|now| (20..70).contains(&now), 20).unwrap() >= 130);
    }
}
