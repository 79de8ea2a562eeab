//! Calls that are dropped, and user code that panics, at every point.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use tower::{Layer, Service};
use tower_mesh_core::{Clock, ManualClock, Ratio, Replay};
use tower_mesh_retry::{Backoff, Budget, Jitter, RetryLayer};

use crate::script::{Script, Step, busy, down, ms, ok};

/// Two retries at once, and none after them.
fn two_retries() -> Budget {
    Budget::new(Ratio::ZERO).min_per_second(2)
}

fn steps() -> [Step; 4] {
    [
        Step::AnswerAfter(ms(50), Err("reset".into())),
        Step::Hang,
        Step::AnswerAfter(ms(10), Ok(200)),
        ok(),
    ]
}

struct Stage {
    script: Script,
    budget: Budget,
    clock: Clock,
    hand: ManualClock,
}

impl Stage {
    fn new() -> (Self, RetryLayer) {
        let (clock, hand) = Clock::manual();
        let (budget, script) = (two_retries(), Script::on(clock.clone(), steps(), None));
        let layer = RetryLayer::new(budget.clone())
            .backoff(Backoff::exponential(ms(100), ms(100)).jitter(Jitter::None))
            .per_try_timeout(ms(200))
            .clock(clock.clone());
        let stage = Self {
            script,
            budget,
            clock,
            hand,
        };
        (stage, layer)
    }

    /// Nothing is in flight, no timer waits, and nobody holds what they should not.
    fn at_rest(&self, holders: usize, told: &str) {
        assert_eq!(self.script.notes(|notes| notes.in_flight), 0, "{told}");
        assert_eq!(self.hand.timers(), 0, "{told}");
        assert_eq!(self.script.holders(), holders, "{told}");
        let balance = self.budget.snapshot(self.clock.now()).balance;
        assert!((0.0..=2.0).contains(&balance), "{told}: {balance}");
    }
}

#[test]
fn a_call_dropped_at_any_point_leaves_nothing_behind() {
    // What happens at each step of 10 ms: 50 ms answer, 100 ms wait, 200 ms timeout, 100 ms wait, 10 ms answer.
    let mut completed = false;
    for polls in 0..60 {
        let (stage, layer) = Stage::new();
        let mut retry = layer.layer(stage.script.clone());
        let mut call = tokio_test::task::spawn(retry.call("a"));
        let mut spent = 0;
        for _ in 0..polls {
            completed = call.poll().is_ready();
            spent = stage.budget.snapshot(stage.clock.now()).withdrawals;
            if completed {
                break;
            }
            stage.hand.advance(ms(10));
        }
        drop(call);
        // `stage.script` and the one in `retry`.
        stage.at_rest(2, &format!("{polls} polls"));
        // What was taken out for a retry that was not made is back.
        let snapshot = stage
            .budget
            .snapshot(stage.clock.now() + Duration::from_secs(1));
        assert_eq!((snapshot.withdrawals, snapshot.balance), (spent, 2.0));
        let made = stage.script.calls() as u64;
        assert_eq!(made.saturating_sub(1), spent, "{polls} polls");
        let abandoned = stage
            .script
            .notes(|notes| notes.abandoned + notes.timed_out);
        assert!(abandoned <= 2);
    }
    assert!(completed, "the last of them had all its attempts");
}

#[test]
fn a_wait_that_is_given_up_gives_its_retry_back_at_once() {
    let (stage, layer) = Stage::new();
    let mut retry = layer.layer(Script::on(stage.clock.clone(), [down()], None));
    let mut call = tokio_test::task::spawn(retry.call("a"));
    assert!(call.poll().is_pending());
    assert_eq!(stage.budget.snapshot(stage.clock.now()).balance, 1.0);
    drop(call);
    let snapshot = stage.budget.snapshot(stage.clock.now());
    assert_eq!((snapshot.balance, snapshot.withdrawals), (2.0, 0));
}

/// Panics when it is asked for the request again.
#[derive(Clone)]
struct PanicsAgain;

impl Replay<&'static str> for PanicsAgain {
    type Kept = ();

    fn is_idempotent(&self, _: &&'static str) -> bool {
        true
    }

    fn keep(&self, _: &mut &'static str) -> Option<()> {
        Some(())
    }

    fn again(&self, (): &()) -> Option<&'static str> {
        panic!("user code")
    }
}

/// Polls `retry` once and expects a panic; what it leaves behind is looked at, and that it still serves.
fn panics<R, K>(stage: &Stage, layer: RetryLayer<R, K>, step: Step)
where
    R: Replay<&'static str>,
    K: tower_mesh_core::Classify<u16>,
{
    let script = Script::on(stage.clock.clone(), [step, ok()], None);
    let mut retry = layer.layer(script.clone());
    let mut call = tokio_test::task::spawn(retry.call("a"));
    let caught = catch_unwind(AssertUnwindSafe(|| call.poll().is_ready()));
    assert!(caught.is_err(), "it panics");
    drop(call);
    assert_eq!(script.notes(|notes| notes.in_flight), 0);
    assert_eq!(script.holders(), 2);
    assert_eq!(stage.hand.timers(), 0);
    assert_eq!(tower_mesh_core::frame::deadline(), None);
    let snapshot = stage.budget.snapshot(stage.clock.now());
    assert_eq!((snapshot.balance, snapshot.withdrawals), (2.0, 0));
}

#[test]
fn a_panic_in_the_service_costs_the_budget_nothing() {
    let (stage, layer) = Stage::new();
    panics(&stage, layer, Step::Panic);
}

#[test]
fn a_panic_in_the_classifier_costs_the_budget_nothing() {
    let (stage, layer) = Stage::new();
    let judge = |_: Result<&u16, &(dyn std::error::Error + Send + Sync + 'static)>| {
        if true {
            panic!("user code");
        }
        tower_mesh_core::Outcome::success()
    };
    panics(&stage, layer.classify(judge), busy(ms(5)));
}

#[test]
fn a_panic_in_the_replay_costs_the_budget_nothing() {
    let (stage, layer) = Stage::new();
    panics(&stage, layer.replay(PanicsAgain), down());
}

#[test]
fn after_a_panic_the_same_service_serves_others() {
    let (stage, layer) = Stage::new();
    let script = Script::on(stage.clock.clone(), [Step::Panic, ok()], None);
    let mut retry = layer.layer(script);
    let mut call = tokio_test::task::spawn(retry.call("a"));
    assert!(catch_unwind(AssertUnwindSafe(|| call.poll().is_ready())).is_err());
    drop(call);
    assert!(tokio_test::task::spawn(retry.call("a")).poll().is_ready());
}
