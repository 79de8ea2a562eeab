//! Which of several endpoints is the better one.

use std::time::Duration;

use tower_mesh_core::{Instant, Load, Sampling};

/// How an endpoint is chosen.
///
/// All of them honour weights, never choose an endpoint whose gate is shut, and cost the same for ten endpoints as for
/// a hundred thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// The best of three random endpoints by mean latency x (in flight + 1) / success rate squared.
    ///
    /// The default. On uneven fleets its p99 is 0.3 to 0.4 times that of [`LeastInFlight`](Self::LeastInFlight) and 0.6
    /// to 0.95 times that of [`PeakEwma`](Self::PeakEwma) in simulation, and the same on even ones.
    #[default]
    BestOfThree,
    /// The better of two random endpoints by peak latency x (in flight + 1) / success rate squared.
    ///
    /// The peak jumps up with each slow answer and decays within 10 s: Finagle's and linkerd's choice, more cautious
    /// after a single slow answer.
    PeakEwma,
    /// The better of two random endpoints by (in flight + 1) / success rate squared.
    ///
    /// For calls whose latency says nothing of the endpoint, such as long polls.
    LeastInFlight,
    /// One after the other.
    RoundRobin,
    /// A random one.
    Weighted,
}

/// The least success rate reckoned with, so that endpoints that only fail can still be compared.
const LEAST_SUCCESS: f32 = 0.05;

/// What an endpoint costs more that fails more often than this: no queue of others makes it worth a call.
const MOSTLY_FAILS: (f32, f32) = (0.5, 1e9);

/// From here on the success rate is as good as 1: what is missing is the tail of a failure long ago.
const FULL_SUCCESS: f32 = 0.999;

/// An endpoint without calls is taken to recover with this time constant. One that fails is so tried about every seven
/// seconds, and its first success then counts nearly in full, since it comes so long after the last failure.
const RECOVERY: Duration = Duration::from_secs(5);

/// What was measured so recently stands as it is.
const FRESH: Duration = Duration::from_secs(1);

/// After that, an idle endpoint is taken to be faster than it was, with this time constant: else one slow answer could
/// keep calls from it for ever. Finagle's decay.
const STALE: Duration = Duration::from_secs(10);

/// With less than this on its hands an endpoint counts as idle: calls given up fade out below it.
const IDLE: f32 = 0.25;

/// An endpoint that has never succeeded is tried again once it is taken to have recovered this far.
const TRY_AGAIN: f32 = 0.75;

/// The latency reckoned with, in microseconds, of an endpoint that has never succeeded while it has a call to show what it
/// can: worse than any that has been measured, better than failing.
const UNANSWERED: f32 = 1e12;

/// The same when such calls have been given up: slow, but not so slow that an endpoint which hangs now is preferred
/// because it once was fast.
const DOUBTFUL: f32 = 100e3;

impl Strategy {
    /// What each attempt has to record for it.
    pub(crate) const fn sampling(self) -> Sampling {
        match self {
            Self::PeakEwma => Sampling::Peak,
            _ => Sampling::Mean,
        }
    }
}

/// When endpoints are compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    /// What was measured since then stands as it is.
    fresh: Instant,
}

impl Moment {
    pub(crate) fn new(now: Instant) -> Self {
        let fresh = now - FRESH;
        Self { now, fresh }
    }
}

/// What a call to an endpoint costs by its mean latency; less is better. `relative` is the mean weight divided by the
/// endpoint's.
#[inline(always)]
pub(crate) fn by_mean_latency(load: &Load, relative: f32, at: &Moment) -> f32 {
    cost(load.latency_us(), load, relative, at)
}

/// The same by its peak latency, or by its mean until there is a peak.
pub(crate) fn by_peak_latency(load: &Load, relative: f32, at: &Moment) -> f32 {
    let peak = load.peak_us(at.now).map(|peak| peak as f32);
    cost(peak.or_else(|| load.latency_us()), load, relative, at)
}

/// The same as if all had the same latency.
pub(crate) fn by_in_flight(load: &Load, relative: f32, at: &Moment) -> f32 {
    cost(Some(1.0), load, relative, at)
}

/// Latency x (in flight + 1) / success rate squared.
#[inline(always)]
fn cost(latency: Option<f32>, load: &Load, relative: f32, at: &Moment) -> f32 {
    let busy = load.in_flight() as f32 + load.unanswered(at.now);
    let latency = match latency {
        None => unknown(load, busy, at),
        Some(latency) if load.updated().unwrap_or_default() < at.fresh => {
            stale(latency, load, busy, relative, at)
        }
        Some(latency) => latency,
    };
    let cost = latency * (busy * relative + 1.0);
    if load.success() > FULL_SUCCESS {
        cost
    } else {
        penalised(cost, load, at)
    }
}

#[cold]
#[inline(never)]
fn penalised(cost: f32, load: &Load, at: &Moment) -> f32 {
    let success = recovered(load, at);
    let (mostly, penalty) = MOSTLY_FAILS;
    cost / (success * success) * if success < mostly { penalty } else { 1.0 }
}

/// The latency reckoned with when none has been measured: it is tried by one call, and by no more until it has answered.
#[cold]
#[inline(never)]
fn unknown(load: &Load, busy: f32, at: &Moment) -> f32 {
    if load.in_flight() > 0 || recovered(load, at) < TRY_AGAIN {
        UNANSWERED
    } else if busy >= IDLE {
        DOUBTFUL
    } else {
        0.0
    }
}

/// The latency reckoned with when it was measured long ago. The more an endpoint weighs the sooner it fades, so that
/// endpoints of a service that is hardly called take turns as their weights say.
#[cold]
#[inline(never)]
fn stale(latency: f32, load: &Load, busy: f32, relative: f32, at: &Moment) -> f32 {
    // It has something to answer, so its silence makes nothing better.
    if busy >= IDLE {
        return latency;
    }
    let age = since_outcome(load, at) - FRESH.as_secs_f32();
    latency / growth(age / relative, STALE)
}

/// The success rate, so long after it was measured.
fn recovered(load: &Load, at: &Moment) -> f32 {
    let failing = (1.0 - load.success()) / growth(since_outcome(load, at), RECOVERY);
    (1.0 - failing).max(LEAST_SUCCESS)
}

/// The seconds since the last outcome; without any, as many as the clock has.
fn since_outcome(load: &Load, at: &Moment) -> f32 {
    let updated = load.updated().unwrap_or_default();
    at.now.since(updated).as_secs_f32()
}

/// `e^(elapsed/tau)`, but as the first terms of its series: within 8 % below `tau`, and without a call to `exp`.
fn growth(elapsed: f32, tau: Duration) -> f32 {
    let x = elapsed / tau.as_secs_f32();
    1.0 + x + 0.5 * x * x
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::{Just, prop, prop_assert, prop_oneof, proptest};
    use tower_mesh_core::{Attempt, Clock, Endpoint, Finish, ManualClock, Outcome, Vitals};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    struct One {
        vitals: Arc<Vitals>,
        clock: Clock,
        hand: ManualClock,
    }

    impl One {
        fn new() -> Self {
            let (clock, hand) = Clock::manual();
            let vitals = Arc::clone(Endpoint::new(([10, 0, 0, 1], 80).into()).vitals());
            Self {
                vitals,
                clock,
                hand,
            }
        }

        /// One that has answered in so long.
        fn with_latency(latency: Duration) -> Self {
            let one = Self::new();
            one.call(latency, Outcome::success());
            one
        }

        fn begin(&self) -> Attempt {
            self.vitals
                .attempt(&self.clock, Sampling::Peak)
                .expect("an open gate")
        }

        fn call(&self, latency: Duration, outcome: Outcome) {
            let mut attempt = self.begin();
            self.hand.advance(latency);
            attempt.finish(outcome);
        }

        fn give_up(&self) {
            self.begin().give_up();
        }

        fn cost_by(&self, cost: impl Fn(&Load, f32, &Moment) -> f32, relative: f32) -> f32 {
            cost(self.vitals.load(), relative, &Moment::new(self.clock.now()))
        }

        fn cost(&self) -> f32 {
            self.cost_by(by_mean_latency, 1.0)
        }

        fn wait(&self, time: Duration) -> &Self {
            self.hand.advance(time);
            self
        }
    }

    #[test]
    fn a_call_costs_latency_times_calls_in_flight_and_one() {
        let one = One::with_latency(20 * MS);
        assert_eq!(one.cost(), 20_000.0);
        let _attempts = [one.begin(), one.begin()];
        assert_eq!(one.cost(), 60_000.0);
        assert_eq!(
            one.cost_by(by_mean_latency, 0.5),
            40_000.0,
            "twice the weight"
        );
        assert_eq!(one.cost_by(by_in_flight, 1.0), 3.0);
    }

    // scenario 17
    #[test]
    fn by_peak_latency_a_peak_decays_in_ten_seconds_and_a_failure_costs() {
        let one = One::with_latency(Duration::from_secs(2));
        let _busy = one.begin();
        let peak = one
            .wait(Duration::from_secs(10))
            .cost_by(by_peak_latency, 1.0)
            / 2.0;
        assert!((peak - 736_000.0).abs() < 1_000.0, "{peak}");
        one.call(Duration::from_secs(3), Outcome::success());
        assert_eq!(one.cost_by(by_peak_latency, 1.0), 2.0 * 3e6);
        one.call(Duration::ZERO, Outcome::failure());
        assert!(one.cost_by(by_peak_latency, 1.0) > 2.0 * 3.2e6);
    }

    #[test]
    fn failing_fast_makes_dearer_not_cheaper_by_every_measure() {
        for cost in [by_mean_latency, by_peak_latency, by_in_flight] {
            let one = One::with_latency(20 * MS);
            let before = one.cost_by(cost, 1.0);
            for _ in 0..100 {
                one.call(Duration::ZERO, Outcome::failure());
            }
            let after = one.cost_by(cost, 1.0);
            assert!(after > 1e9 * before, "no queue makes up for it: {after}");
            assert!(after.is_finite(), "it can still be compared");
        }
    }

    #[test]
    fn an_endpoint_that_failed_is_tried_again_within_eight_seconds_and_one_success_redeems_it() {
        let one = One::with_latency(20 * MS);
        for _ in 0..100 {
            one.call(Duration::ZERO, Outcome::failure());
        }
        assert!(one.wait(Duration::from_secs(3)).cost() > 1e9);
        assert!(one.wait(Duration::from_secs(5)).cost() < 20_000.0);
        one.call(20 * MS, Outcome::success());
        assert!(one.cost() < 24_000.0, "{}", one.cost());
    }

    #[test]
    fn a_slow_answer_keeps_no_endpoint_out_for_ever() {
        let one = One::with_latency(Duration::from_secs(2));
        assert_eq!(one.wait(FRESH).cost(), 2e6, "not at once");
        assert!(one.wait(Duration::from_secs(150)).cost() < 20_000.0);
        let _busy = one.begin();
        assert_eq!(
            one.cost(),
            4e6,
            "unless it is busy: then its silence is no good sign"
        );
    }

    // scenario 18, second half
    #[test]
    fn without_history_it_is_tried_by_one_call_until_that_is_answered() {
        let one = One::new();
        assert_eq!(one.cost(), 0.0);
        let mut probe = one.begin();
        let unanswered = one.cost();
        assert!(unanswered > One::with_latency(Duration::from_secs(3600)).cost());
        probe.finish(Outcome::failure());
        drop(probe);
        assert!(one.cost() > 1e6 * unanswered, "it has failed");
        assert_eq!(one.wait(Duration::from_secs(9)).cost(), 0.0);
        one.call(5 * MS, Outcome::success());
        assert!(one.cost() < 5_300.0, "{}", one.cost());
    }

    #[test]
    fn a_seed_stands_for_the_latency_while_the_first_call_runs() {
        let one = One::new();
        one.vitals.load().seed(30_000.0);
        assert!(one.cost() < 1.0, "the first call is due");
        let _first = one.begin();
        assert_eq!(one.cost(), 60_000.0, "more may come, as to any other");
    }

    // flaw W3
    #[test]
    fn calls_given_up_cost_like_calls_in_flight_and_fade() {
        for one in [One::with_latency(20 * MS), One::new()] {
            let before = one.cost();
            one.give_up();
            one.give_up();
            assert!(one.cost() > 2.9 * before.max(1.0));
            assert!(
                one.wait(Duration::from_secs(11)).cost() <= before,
                "tried again"
            );
        }
    }

    proptest! {
        // row 7 of the hostile inputs
        #[test]
        fn a_cost_is_a_number_whatever_has_happened(
            steps in prop::collection::vec((0u8..6, prop_oneof![0u64..1_000, Just(u64::MAX / 4)]), 0..30),
            relative in prop_oneof![Just(1.0f32), 1e-5f32..7e4],
        ) {
            let one = One::new();
            let mut held = Vec::new();
            for (step, millis) in steps {
                let time = Duration::from_millis(millis);
                match step {
                    0 => one.call(time, Outcome::success()),
                    1 => one.call(time, Outcome::failure()),
                    2 => one.give_up(),
                    3 => held.push(one.begin()),
                    4 => one.vitals.load().seed(millis as f32),
                    _ => { one.wait(time); }
                }
                for cost in [by_mean_latency, by_peak_latency, by_in_flight] {
                    let cost = one.cost_by(cost, relative);
                    prop_assert!(cost.is_finite() && cost >= 0.0, "{cost}");
                }
            }
        }
    }
}
