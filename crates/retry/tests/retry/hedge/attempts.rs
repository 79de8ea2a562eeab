//! When attempts are made, and which of them answers the caller.

use tower::{Layer, Service, ServiceExt};
use tower_mesh_core::{AtEndpoint, CloneIdempotent, Endpoint, Kind, Ratio, Refusal, Replay, Sent};
use tower_mesh_retry::{Backoff, Budget, Exhausted, Jitter, RetryLayer, Why};

use super::{Stage, attempts};
use crate::script::{Script, Step, busy, down, fails, judge, ms, ok, status};

const HANGS: fn() -> Step = || Step::Hang;

fn after(wait: u64, status: u16) -> Step {
    Step::AnswerAfter(ms(wait), Ok(status))
}

// scenario 26, A6
#[test]
fn without_an_answer_attempts_are_made_after_0_500_1000_and_1500_ms() {
    let stage = Stage::new();
    let script = stage.script([HANGS(), HANGS(), HANGS(), HANGS()]);
    let mut hedge = stage.hedged(&stage.layer(ms(500), 4), &script);
    assert!(stage.call(&mut hedge, ms(10_000)).is_none());
    assert_eq!(script.times(), [0, 500, 1_000, 1_500].map(ms));
    assert_eq!(stage.spent(), 3);
    assert_eq!(script.notes(|notes| notes.in_flight), 0, "the caller left");
}

// scenario 26, A6
#[test]
fn after_a_failure_the_next_attempt_is_made_at_once_and_the_one_after_it_when_its_time_has_come() {
    let stage = Stage::new();
    let script = stage.script([after(200, 503), HANGS(), HANGS(), HANGS()]);
    let mut hedge = stage.hedged(&stage.layer(ms(500), 4), &script);
    assert!(stage.call(&mut hedge, ms(10_000)).is_none());
    assert_eq!(script.times(), [0, 200, 700, 1_200].map(ms));
}

// scenario 26, A6
#[test]
fn the_first_success_ends_the_call_and_all_other_attempts() {
    let stage = Stage::new();
    let script = stage.script([HANGS(), after(200, 200), HANGS()]);
    let layer = stage.layer(ms(500), 4);
    let mut hedge = stage.hedged(&layer, &script);
    let (at, answer) = stage.call(&mut hedge, ms(10_000)).unwrap();
    assert_eq!((at, answer.unwrap()), (ms(700), 200));
    assert_eq!(script.times(), [0, 500].map(ms));
    let left = script.notes(|notes| (notes.in_flight, notes.abandoned, notes.timed_out));
    assert_eq!(
        left,
        (0, 1, 0),
        "the loser was dropped, and not for its time"
    );
    assert_eq!(stage.hand.timers(), 0);
    let known = layer.snapshot();
    assert_eq!((known.sent, known.won, known.refused), (1, 1, 0));
}

#[test]
fn the_losers_are_dropped_before_the_caller_has_its_answer() {
    for (steps, wins) in [
        ([after(600, 200), HANGS()], 0),
        ([HANGS(), after(100, 200)], 1),
    ] {
        let stage = Stage::new();
        let script = stage.script(steps);
        let mut hedge = stage.hedged(&stage.layer(ms(500), 4), &script);
        let mut call = tokio_test::task::spawn(Box::pin(hedge.call("a")));
        let (at, answer) = stage.run(&mut call, ms(10_000)).unwrap();
        assert_eq!((at, answer.unwrap()), (ms(600), 200));
        // The future is still there.
        assert_eq!(script.notes(|notes| notes.in_flight), 0);
        assert_eq!(hedge.snapshot().won, wins);
        drop(call);
    }
}

#[test]
fn a_call_that_is_answered_in_time_is_sent_once() {
    let stage = Stage::new();
    let script = stage.script([after(490, 200)]);
    let mut hedge = stage.hedged(&stage.layer(ms(500), 4), &script);
    assert!(stage.call(&mut hedge, ms(10_000)).unwrap().1.is_ok());
    assert_eq!((script.calls(), stage.spent()), (1, 0));
}

#[test]
fn a_failure_beside_an_attempt_that_is_out_waits_for_that_one() {
    let stage = Stage::new();
    let script = stage.script([after(700, 200), after(50, 503)]);
    let mut hedge = stage.hedged(&stage.layer(ms(500), 2), &script);
    let (at, answer) = stage.call(&mut hedge, ms(10_000)).unwrap();
    assert_eq!((at, answer.unwrap()), (ms(700), 200));
}

#[test]
fn a_hedge_that_the_mesh_itself_refuses_does_not_end_the_call() {
    let stage = Stage::new();
    let refused = fails(Refusal::local(Kind::NoEndpoint));
    let script = stage.script([after(700, 200), refused]);
    let mut hedge = stage.hedged(&stage.layer(ms(500), 4), &script);
    let (at, answer) = stage.call(&mut hedge, ms(10_000)).unwrap();
    assert_eq!((at, answer.unwrap()), (ms(700), 200));
    assert_eq!(script.calls(), 2, "nor is it asked again");
}

#[test]
fn after_the_head_nothing_else_is_waited_for() {
    let stage = Stage::new();
    // What is open still wins: only the end of its body will tell.
    let script = stage.script([HANGS(), after(10, 100)]);
    let mut hedge = stage.hedged(&stage.layer(ms(500), 4), &script);
    assert_eq!(stage.call(&mut hedge, ms(10_000)).unwrap().1.unwrap(), 100);
}

#[test]
fn when_all_fail_the_error_tells_of_each() {
    let one = Endpoint::new(([10, 0, 0, 1], 80).into()).with_id("orders-1");
    let reset = Refusal::remote(Kind::Transport, Sent::Maybe);
    let reset = Step::AnswerAfter(ms(600), Err(AtEndpoint::new(one.clone(), reset).into()));
    let stage = Stage::new();
    let script = stage.script([reset, Step::AnswerAfter(ms(200), Err("down".into()))]);
    let mut hedge = stage.hedged(&stage.layer(ms(500), 2), &script);
    let (at, answer) = stage.call(&mut hedge, ms(10_000)).unwrap();
    assert_eq!(at, ms(700));
    let error = answer.unwrap_err();
    let error = error.downcast_ref::<Exhausted>().unwrap();
    assert_eq!((error.made(), error.why()), (2, Why::AttemptsUsedUp));
    assert_eq!(error.attempts()[0].endpoint(), Some(&one));
    assert_eq!(error.attempts()[1].error(), "down");
    let refusal = Refusal::of(error).unwrap();
    assert_eq!(
        (refusal.kind(), refusal.sent()),
        (Kind::AttemptsExhausted, Sent::Maybe)
    );
}

#[test]
fn a_response_of_the_last_attempt_reaches_the_caller_unchanged() {
    let stage = Stage::new();
    let script = stage.script([status(500), status(503)]);
    let mut hedge = stage.hedged(&stage.layer(ms(500), 2), &script);
    assert_eq!(stage.call(&mut hedge, ms(0)).unwrap().1.unwrap(), 503);
    assert_eq!(script.calls(), 2);
}

// A6
#[test]
fn who_asks_for_time_gets_it_and_who_asks_to_be_left_alone_is() {
    let stage = Stage::new();
    let script = stage.script([busy(ms(300)), ok()]);
    let mut hedge = stage.hedged(&stage.layer(ms(100), 4), &script);
    assert!(stage.call(&mut hedge, ms(10_000)).unwrap().1.is_ok());
    assert_eq!(script.times(), [0, 300].map(ms));

    let script = stage.script([after(150, 599), after(100, 503)]);
    let mut hedge = stage.hedged(&stage.layer(ms(100), 4), &script);
    let (at, answer) = stage.call(&mut hedge, ms(10_000)).unwrap();
    // The second, which was out already, is waited for; a third is not made, though it fails without asking for that.
    assert_eq!(at, ms(200));
    assert_eq!(answer.unwrap(), 503);
    assert_eq!(script.calls(), 2);
}

/// GET may be sent twice, PUT too but not at once.
#[derive(Clone)]
struct Methods;

impl Replay<&'static str> for Methods {
    type Kept = &'static str;

    fn is_idempotent(&self, request: &&'static str) -> bool {
        *request != "POST"
    }

    fn keep(&self, request: &mut &'static str) -> Option<&'static str> {
        Some(request)
    }

    fn again(&self, kept: &&'static str) -> Option<&'static str> {
        Some(kept)
    }

    fn can_overlap(&self, kept: &&'static str) -> bool {
        *kept != "PUT"
    }
}

#[test]
fn only_what_is_idempotent_and_may_be_sent_while_it_is_being_sent_is_hedged() {
    for (method, calls) in [("GET", 2), ("PUT", 1), ("POST", 1)] {
        let stage = Stage::new();
        let script = stage.script([after(700, 200), HANGS()]);
        let layer = stage.layer(ms(500), 2).replay(Methods);
        let mut hedge = layer.layer(script.clone());
        let mut call = tokio_test::task::spawn(Box::pin(hedge.call(method)));
        let (at, answer) = stage.run(&mut call, ms(10_000)).unwrap();
        assert_eq!((at, answer.unwrap()), (ms(700), 200));
        assert_eq!(script.calls(), calls, "{method}");
    }
}

/// What an implementation says that was written before hedges were thought of.
#[derive(Clone)]
struct SaysNothing;

impl Replay<&'static str> for SaysNothing {
    type Kept = &'static str;

    fn is_idempotent(&self, _: &&'static str) -> bool {
        true
    }

    fn keep(&self, request: &mut &'static str) -> Option<&'static str> {
        Some(request)
    }

    fn again(&self, _: &&'static str) -> Option<&'static str> {
        panic!("the first attempt would stand still")
    }
}

#[test]
fn a_replay_that_does_not_say_so_is_never_asked_for_a_second_request_beside_the_first() {
    let stage = Stage::new();
    let script = stage.script([after(700, 200)]);
    let mut hedge = stage.layer(ms(500), 2).replay(SaysNothing).layer(script);
    assert!(stage.call(&mut hedge, ms(10_000)).unwrap().1.is_ok());
}

#[test]
fn no_hedge_begins_after_the_deadline() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let stage = Stage::new();
    let clock = tower_mesh_core::Clock::tokio();
    runtime.block_on(async {
        let script = Script::on(clock.clone(), [after(50, 503)], None);
        let layer = stage.layer(ms(10_000), 2).clock(clock.clone());
        let call = layer.layer(script.clone()).oneshot("a");
        let answer = crate::script::with_deadline(clock, ms(40), async {
            tokio::time::timeout(ms(60), call).await
        });
        let _ = answer.await;
        assert_eq!(script.calls(), 1);
    });
}

fn retry(stage: &Stage) -> RetryLayer<CloneIdempotent, super::Judge> {
    RetryLayer::new(stage.budget.clone())
        .attempts(attempts(3))
        .backoff(Backoff::exponential(ms(100), ms(100)).jitter(Jitter::None))
        .classify(judge as super::Judge)
        .clock(stage.clock.clone())
}

#[test]
fn beneath_a_retry_a_failure_is_the_retrys_with_its_backoff() {
    let stage = Stage::new();
    let script = stage.script([after(10, 503), ok()]);
    let hedge = stage.layer(ms(500), 2).beneath_retry();
    let deposits = stage.budget.snapshot(stage.clock.now()).deposits;
    let mut service = retry(&stage).over(hedge.layer(script.clone()));
    assert!(stage.call(&mut service, ms(10_000)).unwrap().1.is_ok());
    assert_eq!(script.times(), [0, 110].map(ms));
    assert_eq!(hedge.snapshot().sent, 0);
    let counted = stage.budget.snapshot(stage.clock.now()).deposits - deposits;
    assert_eq!(counted, 1, "the call counts once");
}

#[test]
fn beneath_a_retry_attempt_and_hedge_that_both_fail_are_tried_again() {
    let stage = Stage::new();
    let reset = || Err(Refusal::remote(Kind::Transport, Sent::Maybe).into());
    let steps = [
        Step::AnswerAfter(ms(60), reset()),
        Step::AnswerAfter(ms(20), reset()),
        down(),
        down(),
    ];
    let script = stage.script(steps);
    let hedge = stage.layer(ms(50), 2).beneath_retry();
    let mut service = retry(&stage).over(hedge.layer(script.clone()));
    let (_, answer) = stage.call(&mut service, ms(10_000)).unwrap();
    assert_eq!(script.times(), [0, 50, 170, 270].map(ms));
    let error = answer.unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains("2 attempts failed and the rest is left to the retry above: 1. "),
        "{told}"
    );
    let error = error.downcast_ref::<Exhausted>().unwrap();
    assert_eq!((error.made(), error.why()), (3, Why::AttemptsUsedUp));
}

#[test]
fn beneath_a_retry_a_single_failure_is_not_dressed_up() {
    let stage = Stage::new();
    let script = stage.script([down()]);
    let mut hedge = stage.layer(ms(50), 2).beneath_retry().layer(script);
    let (_, answer) = stage.call(&mut hedge, ms(0)).unwrap();
    assert_eq!(answer.unwrap_err().to_string(), "down");
}

#[test]
fn a_low_rate_has_no_hedge_beyond_its_share_whatever_its_retries_may() {
    let stage = Stage::new();
    // Ten retries a second; of each ten calls, one hedge.
    let budget = Budget::new(Ratio::percent(10)).min_per_second(10);
    let layer = tower_mesh_retry::HedgeLayer::new(budget.clone())
        .after(tower_mesh_retry::HedgeAfter::Fixed(ms(50)))
        .clock(stage.clock.clone());
    for _ in 0..200 {
        let script = stage.script([after(200, 200), after(500, 200)]);
        let mut hedge = layer.layer(script);
        assert!(stage.call(&mut hedge, ms(1_000)).unwrap().1.is_ok());
        stage.hand.advance(ms(800));
    }
    let known = layer.snapshot();
    assert!((19..=20).contains(&known.sent), "{known:?}");
    assert_eq!(known.sent + known.refused, 200);
    assert_eq!(budget.snapshot(stage.clock.now()).withdrawals, known.sent);
}
