use std::sync::Arc;

use proptest::prelude::{Just, prop, prop_assert, prop_oneof, proptest};
use tower_mesh_core::{Attempt, Clock, Endpoint, Finish, ManualClock, Outcome, Report, Vitals};

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
fn a_seed_stands_for_the_latency_until_and_while_the_first_call_runs() {
    let one = One::new();
    one.vitals.load().seed(30_000.0, one.clock.now());
    assert_eq!(one.cost(), 30_000.0, "all clients would call it at once");
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
                4 => one.vitals.load().seed(millis as f32, one.clock.now()),
                _ => { one.wait(time); }
            }
            for cost in [by_mean_latency, by_peak_latency, by_in_flight] {
                let cost = one.cost_by(cost, relative);
                prop_assert!(cost.is_finite() && cost >= 0.0, "{cost}");
            }
        }
    }
}

#[test]
fn what_a_server_says_is_for_those_who_ask() {
    let one = One::with_latency(10 * MS);
    one.begin().report(Report::new(2, 10 * MS));
    assert_eq!(one.cost(), 10_000.0);
    assert_eq!(one.cost_by(by_reported_latency, 1.0), 30_000.0);
    let _attempt = one.begin();
    assert_eq!(one.cost_by(by_reported_latency, 1.0), 60_000.0);
    let unknown = One::new();
    unknown.begin().report(Report::new(2, 10 * MS));
    let without = unknown.cost();
    assert_eq!(
        unknown.cost_by(by_reported_latency, 1.0),
        without,
        "what is said blends in"
    );
}
