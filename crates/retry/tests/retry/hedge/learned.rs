//! When a hedge is sent that nobody has said the time of.

use std::time::Duration;

use tower::Layer;
use tower_mesh_core::Ratio;
use tower_mesh_retry::{HedgeAfter, HedgeLayer, RetryLayer};

use super::{Stage, attempts};
use crate::script::{Step, ms};

fn after(wait: u64) -> Step {
    Step::AnswerAfter(ms(wait), Ok(200))
}

/// Answers so many calls after these times, in turn.
fn answer(stage: &Stage, layer: &HedgeLayer, calls: usize, times: &[u64]) {
    for nth in 0..calls {
        let mut hedge = layer.layer(stage.script([after(times[nth % times.len()])]));
        assert!(stage.call(&mut hedge, ms(10_000)).unwrap().1.is_ok());
    }
}

#[test]
fn nothing_is_hedged_until_a_hundred_answers_are_known() {
    let stage = Stage::new();
    let layer = HedgeLayer::new(stage.budget.clone()).clock(stage.clock.clone());
    answer(&stage, &layer, 99, &[10]);
    let mut hedge = layer.layer(stage.script([after(2_000)]));
    assert!(stage.call(&mut hedge, ms(10_000)).unwrap().1.is_ok());
    assert_eq!((layer.snapshot().sent, layer.snapshot().delay), (0, None));
    // That was the hundredth.
    stage.hand.advance(ms(200));
    answer(&stage, &layer, 2, &[10]);
    assert!(layer.snapshot().delay.is_some());
}

#[test]
fn a_call_that_takes_longer_than_most_is_hedged() {
    let stage = Stage::new();
    let layer = HedgeLayer::new(stage.budget.clone()).clock(stage.clock.clone());
    // One of ten takes 100 ms, so the 95th percentile is 100 ms.
    answer(
        &stage,
        &layer,
        300,
        &[10, 10, 10, 10, 10, 10, 10, 10, 10, 100],
    );
    let known = layer.snapshot();
    let delay = known.delay.unwrap();
    assert!(delay > ms(100) && delay <= ms(113), "{delay:?}");
    assert_eq!(known.sent, 0);

    let script = stage.script([after(5_000), after(10)]);
    let mut hedge = layer.layer(script.clone());
    let (at, answer) = stage.call(&mut hedge, ms(10_000)).unwrap();
    assert!(answer.is_ok());
    // In steps of 10 ms: sent after 110 ms, answered 10 ms later.
    assert_eq!(at, ms(120), "{delay:?}");
    assert_eq!(layer.snapshot().won, 1);
}

#[test]
fn a_fast_service_is_not_hedged_before_a_millisecond() {
    let stage = Stage::new();
    let layer = HedgeLayer::new(stage.budget.clone()).clock(stage.clock.clone());
    answer(&stage, &layer, 200, &[0]);
    stage.hand.advance(ms(200));
    answer(&stage, &layer, 1, &[0]);
    assert_eq!(layer.snapshot().delay, Some(ms(1)));
    let slower = HedgeAfter::Percentile {
        share: Ratio::percent(95),
        at_least: ms(20),
    };
    let layer = layer.after(slower);
    assert_eq!(layer.snapshot().delay, None, "it has learned nothing yet");
    answer(&stage, &layer, 200, &[0]);
    stage.hand.advance(ms(200));
    answer(&stage, &layer, 1, &[0]);
    assert_eq!(layer.snapshot().delay, Some(ms(20)));
}

// What a hedge wins was slow all the same. If such calls were left out, the percentile would be of what is fast, fall, and
// hedge more: here it would fall to 10 ms, since everything else is hedged.
#[test]
fn what_hedges_win_does_not_make_the_service_look_fast() {
    let stage = Stage::new();
    let layer = HedgeLayer::new(stage.budget.clone()).clock(stage.clock.clone());
    answer(
        &stage,
        &layer,
        200,
        &[10, 10, 10, 10, 10, 10, 10, 10, 10, 100],
    );
    let before = layer.snapshot().delay.unwrap();
    for nth in 0..2_000 {
        let slow = nth % 10 == 9;
        let script = stage.script([after(if slow { 1_000 } else { 10 }), after(10)]);
        stage.budget.deposit(stage.clock.now());
        let mut hedge = layer.layer(script);
        assert!(stage.call(&mut hedge, ms(10_000)).unwrap().1.is_ok());
    }
    let known = layer.snapshot();
    assert!(known.won > 190, "{known:?}");
    assert!(
        known.delay.unwrap() >= before,
        "{known:?}, it was {before:?}"
    );
}

#[test]
fn failures_teach_nothing() {
    let stage = Stage::new();
    let layer = stage.layer(ms(10), 2).after(HedgeAfter::default());
    let call = |first: Step| {
        stage.budget.deposit(stage.clock.now());
        let mut hedge = layer.layer(stage.script([first, Step::Answer(Ok(200))]));
        assert!(stage.call(&mut hedge, ms(1_000)).is_some());
    };
    (0..120).for_each(|_| call(after(50)));
    let before = layer.snapshot().delay.unwrap();
    assert!(before > ms(50));
    // Who fails at once and is answered by another at once is not fast.
    (0..4_000).for_each(|_| call(Step::Answer(Ok(503))));
    stage.hand.advance(ms(200));
    call(after(50));
    let known = layer.snapshot();
    assert_eq!((known.delay, known.won), (Some(before), 4_000));
}

#[test]
fn what_was_learned_long_ago_is_forgotten() {
    let stage = Stage::new();
    let layer = HedgeLayer::new(stage.budget.clone()).clock(stage.clock.clone());
    answer(&stage, &layer, 300, &[10]);
    assert!(layer.snapshot().delay.is_some());
    stage.hand.advance(Duration::from_secs(60));
    let script = stage.script([after(5_000)]);
    let mut hedge = layer.layer(script.clone());
    assert!(stage.call(&mut hedge, ms(10_000)).unwrap().1.is_ok());
    assert_eq!(script.calls(), 1);
    assert_eq!(layer.snapshot().delay, None);
}

#[test]
fn one_layer_is_one_state_however_many_services_it_makes() {
    let stage = Stage::new();
    let layer = HedgeLayer::new(stage.budget.clone()).clock(stage.clock.clone());
    answer(&stage, &layer.clone(), 300, &[10]);
    assert!(layer.snapshot().delay.is_some());
    // And of two layers each has its own.
    let other = layer.clone().after(HedgeAfter::default());
    assert_eq!(other.snapshot().delay, None);
}

#[test]
fn with_one_attempt_nothing_is_kept_and_nothing_hedged() {
    let stage = Stage::new();
    let layer = stage.layer(ms(10), 1);
    let script = stage.script([after(500)]);
    let retry = RetryLayer::new(stage.budget.clone()).clock(stage.clock.clone());
    let mut hedge = retry.over(
        layer
            .beneath_retry()
            .attempts(attempts(1))
            .layer(script.clone()),
    );
    assert!(stage.call(&mut hedge, ms(1_000)).unwrap().1.is_ok());
    assert_eq!(script.calls(), 1);
}
