//! Failures in a row, of which only the failures are heard.

use tower_mesh_core::{Instant, Load};

/// What the load of an endpoint says at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    failures: u64,
    success: f32,
    at: Instant,
}

impl Reading {
    pub(crate) fn of(load: &Load, now: Instant) -> Self {
        Self {
            failures: load.failures(),
            success: load.success(),
            at: now,
        }
    }
}

/// Counts failures in a row without being told of successes, which would cost each of them.
///
/// That one came in between is read from the share of successes that [`Load`] keeps: failures alone bring it down by a
/// factor that their time tells, and a success leaves it above that. Of calls that end at the same moment one may be
/// overlooked, as `Load` itself may lose one of them.
#[derive(Debug)]
pub(crate) struct Run {
    last: Reading,
    /// Failures that count, when the run began.
    base: u64,
    length: u64,
}

/// How far above the share that failures alone leave it must be. The least that a success adds is 0.26 % of it: see the
/// test.
const SURELY: f64 = 1.001;

impl Run {
    /// Begins: what came before is not held against the endpoint. `skipped` is how many of its failures have not counted,
    /// ever: overloads.
    pub(crate) fn new(now: Reading, skipped: u64) -> Self {
        Self {
            last: now,
            base: now.failures.saturating_sub(skipped),
            length: 0,
        }
    }

    /// An endpoint has failed, or has said that it has too much to do if the failure does not `count`; gives the failures
    /// in a row.
    ///
    /// `skipped` includes this one. Reports may be left out, or come in another order than the calls have ended.
    pub(crate) fn failed(&mut self, now: Reading, counts: bool, skipped: u64) -> u64 {
        let counted = now.failures.saturating_sub(skipped);
        if self.last.is_followed_by_success(now) {
            self.base = counted.saturating_sub(u64::from(counts));
        }
        self.last = now;
        self.length = counted.saturating_sub(self.base);
        self.length
    }

    /// The failures in a row as they are now, without another having been reported.
    pub(crate) fn look(&self, now: Reading) -> u64 {
        match self.last.is_followed_by_success(now) {
            true => 0,
            false => self.length,
        }
    }
}

impl Reading {
    fn is_followed_by_success(self, now: Self) -> bool {
        let failures = now.failures.saturating_sub(self.failures);
        let kept = match failures {
            0 => 1.0,
            _ => keeps(now.at.since(self.at).as_nanos() as f64 / 1e9, failures),
        };
        let left = f64::from(self.success) * kept;
        // Shares too small to be exact are those of thousands of failures.
        now.success > f32::MIN_POSITIVE && f64::from(now.success) > left * SURELY
    }
}

/// At most what `failures` leave of the share of successes, the last of them `seconds` after the last outcome before
/// them: the weight of a sample in [`Load`].
fn keeps(seconds: f64, failures: u64) -> f64 {
    let by_time = 1.0 / (1.0 + seconds + 0.5 * seconds * seconds);
    let by_count = 0.95f64.powi(failures.min(1_000) as i32);
    by_time.min(by_count)
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use proptest::prelude::*;
    use tower_mesh_core::{Clock, Finish, ManualClock, Outcome, Sampling, Vitals};

    struct World {
        vitals: Arc<Vitals>,
        clock: Clock,
        time: ManualClock,
        run: Run,
        overloads: u64,
    }

    impl World {
        fn new() -> Self {
            let (clock, time) = Clock::manual();
            let vitals = Vitals::detached();
            Self {
                run: Run::new(Reading::of(vitals.load(), clock.now()), 0),
                vitals,
                clock,
                time,
                overloads: 0,
            }
        }

        /// A call ends so, without being reported.
        fn ends(&self, outcome: Outcome) {
            let attempt = self.vitals.attempt(&self.clock, Sampling::Mean);
            attempt.expect("there is no judge").finish(outcome);
        }

        fn reading(&self) -> Reading {
            Reading::of(self.vitals.load(), self.clock.now())
        }

        fn reported(&mut self, outcome: Outcome) -> u64 {
            self.ends(outcome);
            let counts = outcome == Outcome::failure();
            self.overloads += u64::from(!counts);
            self.run.failed(self.reading(), counts, self.overloads)
        }
    }

    #[test]
    fn a_success_ends_it_even_if_nobody_tells() {
        let mut world = World::new();
        assert_eq!(world.reported(Outcome::failure()), 1);
        assert_eq!(world.reported(Outcome::failure()), 2);
        world.ends(Outcome::success());
        assert_eq!(world.run.look(world.reading()), 0);
        assert_eq!(world.reported(Outcome::failure()), 1);
    }

    #[test]
    fn a_caller_who_goes_away_and_an_overload_neither_lengthen_nor_end_it() {
        let mut world = World::new();
        world.reported(Outcome::failure());
        world.ends(Outcome::neutral());
        assert_eq!(world.reported(Outcome::overload()), 1);
        assert_eq!(world.reported(Outcome::failure()), 2);
        world.ends(Outcome::success());
        assert_eq!(world.reported(Outcome::overload()), 0);
        assert_eq!(world.reported(Outcome::failure()), 1);
    }

    #[test]
    fn a_failure_that_was_not_reported_is_caught_up_with() {
        let mut world = World::new();
        world.reported(Outcome::failure());
        world.ends(Outcome::failure());
        world.ends(Outcome::failure());
        assert_eq!(world.reported(Outcome::failure()), 4);
        // The same failure once more: another thread was faster to report than to end.
        assert_eq!(world.run.failed(world.reading(), true, 0), 4);
    }

    #[test]
    fn ten_thousand_failures_in_a_row_are_ten_thousand() {
        let mut world = World::new();
        let last = (0..10_000)
            .map(|_| world.reported(Outcome::failure()))
            .last();
        assert_eq!(last, Some(10_000));
        world.ends(Outcome::success());
        assert_eq!(world.reported(Outcome::failure()), 1);
    }

    #[test]
    fn failures_that_are_minutes_apart_are_in_a_row_all_the_same() {
        for seconds in (60..3_600).step_by(60) {
            let mut world = World::new();
            world.ends(Outcome::success());
            for length in 1..=3 {
                assert_eq!(world.reported(Outcome::failure()), length, "{seconds} s");
                world.time.advance(Duration::from_secs(seconds));
            }
            world.ends(Outcome::success());
            assert_eq!(world.reported(Outcome::failure()), 1, "{seconds} s");
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Failure,
        Success,
        Neutral,
        Overload,
        Unreported,
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Failure),
            2 => Just(Step::Success),
            1 => Just(Step::Neutral),
            1 => Just(Step::Overload),
            1 => Just(Step::Unreported),
            2 => (0u64..1_000).prop_map(Step::Wait),
            2 => (0u64..60_000_000).prop_map(Step::Wait),
            1 => (0u64..600_000_000_000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        // Holds the formula here against the one in core, too: if they part, this fails.
        #[test]
        fn whatever_comes_when_it_counts_as_if_it_heard_everything(
            steps in proptest::collection::vec(step(), 1..200)
        ) {
            let mut world = World::new();
            let (mut in_a_row, mut is_all_reported) = (0, true);
            for step in steps {
                let length = match step {
                    Step::Wait(nanos) => {
                        world.time.advance(Duration::from_nanos(nanos));
                        continue;
                    }
                    Step::Neutral => {
                        world.ends(Outcome::neutral());
                        continue;
                    }
                    Step::Unreported => {
                        world.ends(Outcome::failure());
                        in_a_row += 1;
                        is_all_reported = false;
                        continue;
                    }
                    Step::Success => {
                        world.ends(Outcome::success());
                        in_a_row = 0;
                        world.run.look(world.reading())
                    }
                    Step::Overload => world.reported(Outcome::overload()),
                    Step::Failure => {
                        in_a_row += 1;
                        world.reported(Outcome::failure())
                    }
                };
                // What nobody has reported may hide a success for once, or be taken for what came before it.
                if is_all_reported {
                    prop_assert_eq!(length, in_a_row, "{:?}", step);
                } else if !matches!(step, Step::Success) {
                    (in_a_row, is_all_reported) = (length, true);
                }
            }
        }
    }
}
