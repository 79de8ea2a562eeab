//! How a watcher turns: which index it asks with next, and how long it pauses before. Pure.

use std::{num::NonZeroU32, time::Duration};

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

/// Those who follow something, what they share, and how often agents want to be asked by all of them together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    pub(crate) following: usize,
    pub(crate) places: usize,
    /// Requests a second.
    pub(crate) rate: NonZeroU32,
}

impl Crowd {
    /// How long an agent may hold a request, at most `wait`.
    ///
    /// Where places are shared, whoever finds one keeps it for so short a time that everyone has had one within
    /// [`ROUND`]; but for so long that requests which nothing ends sooner keep to the rate.
    pub(crate) fn held(self, wait: Duration) -> Duration {
        let turns = self.following.div_ceil(self.places.max(1)).max(1);
        match turns {
            1 => wait,
            turns => (ROUND / count(turns))
                .max(self.time_for(self.places))
                .clamp(SHORTEST, wait),
        }
    }

    /// How long one of them pauses at most after an error, which is `longest` or what the rate asks for.
    pub(crate) fn pause(self, longest: Duration) -> Duration {
        // A half of each pause is chance, so the mean is three quarters.
        longest.max(self.time_for(self.following) * 4 / 3)
    }

    /// What so many requests take at the rate.
    fn time_for(self, requests: usize) -> Duration {
        Duration::from_secs(1) * count(requests) / self.rate.get()
    }
}

fn count(many: usize) -> u32 {
    // More than that do not fit into memory.
    u32::try_from(many).unwrap_or(u32::MAX)
}

const ROUND: Duration = Duration::from_secs(10);

fn jittered(doublings: u32, longest: Duration, rng: &Rng) -> Duration {
    let most = (SHORTEST * (1 << doublings.min(20))).min(longest);
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
        let held = |following| crowd(following, 10_000).held(wait);
        assert_eq!(held(128), wait);
        assert_eq!(held(129), Duration::from_secs(5));
        assert_eq!(held(1_000), Duration::from_millis(1_250));
        assert_eq!(held(1_000_000), SHORTEST);
        let second = Duration::from_secs(1);
        assert_eq!(crowd(129, 10_000).held(second), second);
    }

    /// S6 of reference/performance.md (d).
    #[test]
    fn however_many_follow_something_they_ask_no_more_often_than_they_may() {
        let (wait, longest) = (Duration::from_secs(300), Duration::from_secs(10));
        for (following, rate) in [(129, 20), (1_000, 20), (100_000, 20), (1_000, 1)] {
            let crowd = crowd(following, rate);
            let asked = f64::from(128) / crowd.held(wait).as_secs_f64();
            assert!(asked <= f64::from(rate) * 1.001, "{asked} a second");
            let rng = Rng::seeded(1);
            let mean = (0..1_000).map(|_| {
                let (mut pace, mut pause) = (Pace::default(), Duration::ZERO);
                for _ in 0..20 {
                    pause = pace.failed(crowd.pause(longest), &rng);
                }
                pause.as_secs_f64() / 1_000.0
            });
            let failing = following as f64 / mean.sum::<f64>();
            assert!(failing <= f64::from(rate) * 1.1, "{failing} a second");
        }
        // Few of them are not held up.
        assert_eq!(crowd(100, 20).pause(longest), longest);
    }

    fn crowd(following: usize, rate: u32) -> Crowd {
        Crowd {
            following,
            places: 128,
            rate: NonZeroU32::new(rate).expect("a rate"),
        }
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
