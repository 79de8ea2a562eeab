//! When attempts are made, and when they end.

use std::{num::NonZeroU32, time::Duration};

use tower::{Layer, Service, ServiceExt};
use tower_mesh_core::{Clock, Ratio, Refusal, Rng, Sent, frame};
use tower_mesh_retry::{AttemptTimeout, Backoff, Budget, Exhausted, Jitter, RetryLayer, Why};

use crate::{
    attempts::generous,
    script::{Script, Step, busy, down, judge, ms, ok, status, with_deadline},
};

/// Waits of 100 ms, 200 ms, 400 ms.
fn layer() -> RetryLayer {
    RetryLayer::new(generous())
        .attempts(NonZeroU32::new(4).unwrap())
        .backoff(Backoff::exponential(ms(100), ms(1_000)).jitter(Jitter::None))
}

fn why(error: &tower::BoxError) -> Option<Why> {
    error.downcast_ref::<Exhausted>().map(Exhausted::why)
}

#[tokio::test(start_paused = true)]
async fn waits_grow_between_attempts() {
    let script = Script::new([down(), down(), down(), ok()]);
    layer().layer(script.clone()).oneshot("a").await.unwrap();
    assert_eq!(script.times(), [0, 100, 300, 700].map(ms));
}

#[test]
fn a_wait_of_nothing_is_over_at_once_however_often() {
    const MANY: u32 = 50_000;

    let (clock, hand) = Clock::manual();
    let script = Script::on(clock.clone(), [], Some(down));
    let mut retry = RetryLayer::new(Budget::new(Ratio::ONE).min_per_second(u32::MAX))
        .attempts(NonZeroU32::new(MANY).unwrap())
        .backoff(Backoff::exponential(Duration::ZERO, Duration::ZERO))
        .clock(clock)
        .layer(script.clone());
    let mut call = tokio_test::task::spawn(retry.call("a"));
    assert!(call.poll().is_ready());
    assert_eq!((script.calls(), hand.timers()), (MANY as usize, 0));
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_waits_the_same_times() {
    let times = async |seed| {
        let script = Script::new([down(), down(), ok()]);
        let layer = RetryLayer::new(generous()).rng(Rng::seeded(seed));
        layer.layer(script.clone()).oneshot("a").await.unwrap();
        script.times()
    };
    assert_eq!(times(7).await, times(7).await);
    assert_ne!(times(7).await, times(8).await);
}

// scenario 7, flaw T22
#[tokio::test(start_paused = true)]
async fn a_pushback_is_obeyed_to_the_millisecond_and_the_backoff_restarts() {
    let script = Script::new([down(), busy(ms(250)), down(), ok()]);
    layer().layer(script.clone()).oneshot("a").await.unwrap();
    assert_eq!(script.times(), [0, 100, 350, 450].map(ms));
}

// performance.md (f) 18
#[tokio::test(start_paused = true)]
async fn a_storm_of_come_back_at_once_meets_backoff_and_budget() {
    let script = Script::always(|| busy(Duration::ZERO));
    let layer = RetryLayer::default().backoff(Backoff::default().jitter(Jitter::None));
    let retry = layer.layer(script.clone());
    for _ in 0..100 {
        retry.clone().oneshot("a").await.unwrap_err();
    }
    // 100 calls earn ten retries, and the first second gives one.
    assert_eq!(script.calls(), 111);
    assert!(script.times().last().unwrap() >= &(ms(25) * 11));
}

// scenario 8
#[tokio::test(start_paused = true)]
async fn a_wait_that_would_end_after_the_deadline_is_not_begun() {
    for (deadline, calls) in [(ms(301), 3), (ms(300), 2), (ms(50), 1)] {
        let script = Script::always(down);
        let call = layer().layer(script.clone()).oneshot("a");
        let clock = Clock::tokio();
        let start = clock.now();
        let error = with_deadline(clock.clone(), deadline, call)
            .await
            .unwrap_err();
        assert_eq!(why(&error), Some(Why::Deadline));
        let last = error.downcast_ref::<Exhausted>().unwrap().last();
        assert_eq!(
            last.to_string(),
            "down",
            "the last error, not a late deadline"
        );
        assert_eq!(script.calls(), calls);
        assert_eq!(
            clock.now().since(start),
            script.times()[calls - 1],
            "at once"
        );
    }
}

// scenarios 7 and 8
#[tokio::test(start_paused = true)]
async fn ten_minutes_of_retry_after_fail_at_once_with_or_without_a_deadline() {
    let clock = Clock::tokio();
    let start = clock.now();
    for (deadline, expected) in [(ms(5_000), Why::Deadline), (Duration::MAX, Why::Pushback)] {
        let script = Script::new([busy(ms(600_000))]);
        let call = layer().layer(script.clone()).oneshot("a");
        let error = with_deadline(clock.clone(), deadline, call)
            .await
            .unwrap_err();
        assert_eq!(why(&error), Some(expected));
        let refusal = Refusal::of(&*error).unwrap();
        assert_eq!(
            refusal.retry_after(),
            Some(ms(600_000)),
            "told to the caller"
        );
    }
    assert_eq!(clock.now(), start);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_a_timeout_and_another_is_made() {
    let script = Script::new([Step::Hang, Step::AnswerAfter(ms(900), Ok(200))]);
    let layer = layer().per_try_timeout(ms(1_000));
    let answer = layer.layer(script.clone()).oneshot("a").await.unwrap();
    assert_eq!(answer, 200);
    assert_eq!(script.times(), [0, 1_100].map(ms));
    let ends = script.notes(|notes| (notes.timed_out, notes.abandoned, notes.in_flight));
    assert_eq!(ends, (1, 0, 0), "its guard can tell why it was dropped");
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_the_last_attempt_has_its_time_too() {
    let script = Script::always(|| Step::Hang);
    let layer = layer().per_try_timeout(ms(1_000));
    let error = layer.layer(script.clone()).oneshot("a").await.unwrap_err();
    assert_eq!(script.times(), [0, 1_100, 2_300, 3_700].map(ms));
    assert_eq!(why(&error), Some(Why::AttemptsUsedUp));
    let last = error.downcast_ref::<Exhausted>().unwrap().last();
    let timeout = last.downcast_ref::<AttemptTimeout>().unwrap();
    assert_eq!(timeout.after(), ms(1_000));
}

// scenario 8
#[tokio::test(start_paused = true)]
async fn a_deadline_that_is_nearer_than_the_attempt_s_time_is_the_deadline_layer_s() {
    let script = Script::new([down(), Step::Hang]);
    let layer = layer().per_try_timeout(ms(1_000));
    let clock = Clock::tokio();
    let call = layer.layer(script.clone()).oneshot("a");
    let call = with_deadline(clock.clone(), ms(400), call);
    // Nobody here ends the call at its deadline: it is not retry's to do so, whatever else comes.
    let outer = tokio::time::timeout(ms(10_000), call).await;
    assert!(outer.is_err());
    assert_eq!(script.times(), [0, 100].map(ms));
    assert_eq!(script.notes(|notes| notes.timed_out), 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_has_all_that_is_left() {
    let slow = || Step::AnswerAfter(ms(2_000), Ok(200));
    let script = Script::new([Step::Hang, Step::Hang, Step::Hang, slow()]);
    let layer = layer().per_try_timeout(ms(1_000));
    let call = layer.layer(script.clone()).oneshot("a");
    let answer = with_deadline(Clock::tokio(), ms(10_000), call).await;
    assert_eq!(answer.unwrap(), 200);
}

// flaw W13: the time of an attempt begins when it is readied.
#[tokio::test(start_paused = true)]
async fn waiting_for_readiness_takes_the_attempt_s_time_and_was_not_sent() {
    let script = Script::new([Step::NeverReady]);
    let layer = layer().per_try_timeout(ms(1_000)).replay(Post);
    let error = layer.layer(script.clone()).oneshot("a").await.unwrap_err();
    let exhausted = error.downcast_ref::<Exhausted>().unwrap();
    assert_eq!(exhausted.made(), 4, "a request that was not sent may be");
    let refusal = Refusal::of(&*error).unwrap();
    assert_eq!(refusal.sent(), Sent::Never);
    assert_eq!(script.calls(), 0);
}

/// Nothing is idempotent.
#[derive(Clone)]
struct Post;

impl tower_mesh_core::Replay<&'static str> for Post {
    type Kept = ();

    fn is_idempotent(&self, _: &&'static str) -> bool {
        false
    }

    fn keep(&self, _: &mut &'static str) -> Option<()> {
        None
    }

    fn again(&self, (): &()) -> Option<&'static str> {
        None
    }
}

#[test]
fn a_call_that_waits_has_one_timer_and_wakes_nobody_in_between() {
    let (clock, hand) = Clock::manual();
    let script = Script::on(clock.clone(), [down(), status(500), ok()], None);
    let retry = layer()
        .per_try_timeout(ms(500))
        .classify(judge)
        .clock(clock);
    let mut retry = retry.layer(script.clone());
    let mut call = tokio_test::task::spawn(retry.call("a"));
    assert!(call.poll().is_pending());
    assert_eq!(hand.timers(), 1);
    // A poll in between neither makes another timer nor wakes anybody.
    assert!(call.poll().is_pending());
    assert_eq!((hand.timers(), call.is_woken()), (1, false));
    hand.advance(ms(100));
    assert!(call.is_woken());
    assert!(call.poll().is_pending());
    hand.advance(ms(200));
    assert!(call.poll().is_ready());
    drop(call);
    assert_eq!((hand.timers(), script.calls()), (0, 3));
}

#[test]
fn a_call_that_succeeds_reads_the_clock_once_and_arms_no_timer() {
    let (clock, hand) = Clock::manual();
    let mut retry = layer().clock(clock).layer(tower::service_fn(|()| async {
        Ok::<_, tower::BoxError>(())
    }));
    let mut call = tokio_test::task::spawn(retry.call(()));
    assert!(call.poll().is_ready());
    assert_eq!((hand.reads(), hand.timers_registered()), (1, 0));
}

#[test]
fn what_it_waits_for_is_told_to_the_frame() {
    let (clock, hand) = Clock::manual();
    let script = Script::on(clock.clone(), [down(), ok()], None);
    let mut retry = layer().clock(clock.clone()).layer(script);
    let mut spent = Default::default();
    let mut frame = std::pin::pin!(frame::Call::new());
    let mut call = std::pin::pin!(retry.call("a"));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut poll = |spent: &mut frame::Spent| {
        frame.as_mut().poll(&clock, &mut cx, |cx| {
            let out = call.as_mut().poll(cx);
            *spent = frame::spent(clock.now());
            out
        })
    };
    assert!(poll(&mut spent).is_pending());
    assert_eq!(spent.phase, frame::Phase::Backoff);
    hand.advance(ms(100));
    assert!(poll(&mut spent).is_ready());
    assert_eq!(
        (spent.phase, spent.backoff),
        (frame::Phase::Attempt, ms(100))
    );
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_fails_at_once_instead_of_after_a_wait() {
    let none = Budget::new(Ratio::ZERO).min_per_second(0);
    let script = Script::new([down()]);
    let clock = Clock::tokio();
    let start = clock.now();
    let retry = RetryLayer::new(none.clone()).layer(script);
    let error = retry.oneshot("a").await.unwrap_err();
    assert_eq!(why(&error), Some(Why::BudgetEmpty));
    assert_eq!(clock.now(), start);
    assert_eq!(none.snapshot(start).refused, 1);
}
