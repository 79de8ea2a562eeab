//! How a watcher turns: which index it asks with next, and how long it pauses before. Pure.

use std::time::Duration;

use tower_mesh_core::Rng;

/// The index of the last answer, as Consul wants it to be handled.
///
/// It is opaque, but only grows: one that goes back means that the servers' state was lost or restored, and one asks
/// from the beginning. An index of zero would not be waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index(u64);

impl Index {
    /// What to ask with; zero is answered at once.
    pub(crate) fn get(self) -> u64 {
        self.0
    }

    pub(crate) fn advance(&mut self, answered: Option<u64>) {
        let new = answered.unwrap_or(0).max(1);
        self.0 = match new < self.0 {
            true => 0,
            false => new,
        };
    }

    pub(crate) fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Keeps a watcher from spinning.
///
/// An answer does not mean that something has changed: a service that does not exist is woken by every change of the
/// catalogue. Two such answers in a row are for nothing, then pauses grow to 15 s.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    idle: u32,
    errors: u32,
}

const FREE: u32 = 2;
const LONGEST_IDLE: Duration = Duration::from_secs(15);
const SHORTEST: Duration = Duration::from_millis(250);

impl Pace {
    /// How long to pause after an answer; `held` if the agent has held the request for as long as it was told to.
    pub(crate) fn answered(&mut self, news: bool, held: bool, rng: &Rng) -> Duration {
        self.errors = 0;
        if news || held {
            self.idle = 0;
            return Duration::ZERO;
        }
        self.idle += 1;
        match self.idle.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(doublings) => jittered(doublings, LONGEST_IDLE, rng),
        }
    }

    /// How long to pause after an error, at most `longest`.
    ///
    /// Half of it is chance: a thousand watchers that lost a leader do not come back together.
    pub(crate) fn failed(&mut self, longest: Duration, rng: &Rng) -> Duration {
        self.errors += 1;
        jittered(self.errors - 1, longest, rng)
    }
}

/// How long an agent may hold a request, if `following` have to share `places`.
///
/// Whoever finds a place keeps it for so short a time that everyone has had one within [`ROUND`].
pub(crate) fn held(wait: Duration, following: usize, places: usize) -> Duration {
    let turns = following.div_ceil(places.max(1)).max(1);
    match turns {
        1 => wait,
        turns => (ROUND / u32::try_from(turns).unwrap_or(u32::MAX)).clamp(SHORTEST, wait),
    }
}

const ROUND: Duration = Duration::from_secs(10);

fn jittered(doublings: u32, longest: Duration, rng: &Rng) -> Duration {
    let most = (SHORTEST * (1 << doublings.min(10))).min(longest);
    most.mul_f64(0.5 + rng.unit() / 2.0)
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    /// Row 36 of reference/performance.md (f).
    #[test]
    fn an_index_that_goes_back_begins_anew_and_none_is_one() {
        let mut index = Index::default();
        let mut after = |answered| {
            index.advance(answered);
            index.get()
        };
        assert_eq!(after(Some(7)), 7);
        assert_eq!(after(Some(7)), 7);
        assert_eq!(after(Some(9)), 9);
        assert_eq!(after(Some(3)), 0, "the state was lost");
        assert_eq!(after(Some(3)), 3);
        assert_eq!(after(Some(0)), 0);
        assert_eq!(after(None), 1, "zero would never be waited for");
        assert_eq!(after(Some(0)), 1);
    }

    #[test]
    fn answers_that_say_nothing_new_are_asked_for_more_and_more_rarely() {
        let (mut pace, rng) = (Pace::default(), Rng::seeded(1));
        let pauses: Vec<_> = (0..20).map(|_| pace.answered(false, false, &rng)).collect();
        assert_eq!(pauses[..2], [Duration::ZERO; 2]);
        assert!(pauses[2] >= SHORTEST / 2 && pauses[2] <= SHORTEST);
        assert!(pauses[19] >= LONGEST_IDLE / 2 && pauses[19] <= LONGEST_IDLE);
        assert_eq!(pace.answered(true, false, &rng), Duration::ZERO);
        assert_eq!(pace.answered(false, false, &rng), Duration::ZERO);
        assert_eq!(pace.answered(false, false, &rng), Duration::ZERO);
        assert!(pace.answered(false, false, &rng) > Duration::ZERO);
        // One that was held has not spun, and is no news either.
        assert_eq!(pace.answered(false, true, &rng), Duration::ZERO);
    }

    #[test]
    fn who_shares_a_place_keeps_it_for_a_part_of_ten_seconds() {
        let wait = Duration::from_secs(300);
        assert_eq!(held(wait, 128, 128), wait);
        assert_eq!(held(wait, 129, 128), Duration::from_secs(5));
        assert_eq!(held(wait, 1_000, 128), Duration::from_millis(1_250));
        assert_eq!(held(wait, 1_000_000, 128), SHORTEST);
        assert_eq!(
            held(Duration::from_secs(1), 129, 128),
            Duration::from_secs(1)
        );
    }

    #[test]
    fn after_errors_pauses_double_to_the_longest_and_half_of_them_is_chance() {
        let (mut pace, rng) = (Pace::default(), Rng::seeded(1));
        let longest = Duration::from_secs(10);
        let pauses: Vec<_> = (0..12).map(|_| pace.failed(longest, &rng)).collect();
        assert!(pauses[0] >= SHORTEST / 2 && pauses[0] <= SHORTEST);
        assert!(pauses[3] >= SHORTEST * 4 && pauses[3] <= SHORTEST * 8);
        assert!(pauses[11] >= longest / 2 && pauses[11] <= longest);
        pace.answered(true, false, &rng);
        assert!(pace.failed(longest, &rng) <= SHORTEST);
    }
}
