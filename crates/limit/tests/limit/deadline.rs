//! Deadlines: when they come, which one holds, and what their error says.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio_test::task::spawn;
use tower_layer::Layer;
use tower_mesh_core::{
    BoxError, Clock, Kind, Sent,
    frame::{self, Phase},
};
use tower_mesh_limit::{DeadlineExceeded, DeadlineLayer};
use tower_service::Service;

use crate::{Ask, Failed, Inner, MS, Now, SECOND, Switch, bulkhead, call, deadline, poll};

const TOO_LATE: Now = Now::Refused(Kind::DeadlineExceeded, Sent::Maybe);
const NEVER_BEGUN: Now = Now::Refused(Kind::DeadlineExceeded, Sent::Never);

fn exceeded(answer: Poll<Result<&'static str, BoxError>>) -> DeadlineExceeded {
    let Poll::Ready(Err(error)) = answer else {
        panic!("its time is up: {answer:?}");
    };
    *error.downcast().expect("it is ours")
}

#[test]
fn a_call_that_is_not_answered_in_time_is_ended() {
    let (layer, _, time) = deadline(SECOND);
    let inner = Inner::default();
    let mut service = layer.layer(inner.clone());
    let mut task = call(&mut service, Ask::Never);
    assert_eq!(poll(&mut task), Now::Pending);
    time.advance(SECOND - MS);
    assert!(!task.is_woken());
    time.advance(MS);
    assert!(task.is_woken());
    assert_eq!(poll(&mut task), TOO_LATE);
    assert_eq!(
        (inner.running(), inner.timed_out()),
        (0, 1),
        "guards see a timeout"
    );
}

#[test]
fn a_caller_who_goes_away_is_no_timeout() {
    let (layer, _, time) = deadline(SECOND);
    let inner = Inner::default();
    let mut task = call(&mut layer.layer(inner.clone()), Ask::Never);
    assert_eq!(poll(&mut task), Now::Pending);
    drop(task);
    assert_eq!((inner.running(), inner.timed_out()), (0, 0));
    assert_eq!(time.timers(), 0);
}

#[test]
fn an_answer_at_the_very_instant_of_the_deadline_counts() {
    let (layer, _, time) = deadline(SECOND);
    let switch = Switch::default();
    let mut task = call(
        &mut layer.layer(Inner::default()),
        Ask::When(switch.clone()),
    );
    assert_eq!(poll(&mut task), Now::Pending);
    time.advance(SECOND);
    switch.turn_on();
    assert_eq!(poll(&mut task), Now::Answered);
}

#[test]
fn of_nested_deadlines_the_nearest_holds() {
    for (outer, inner) in [(SECOND, 300 * MS), (300 * MS, SECOND)] {
        let (layer, clock, time) = deadline(outer);
        let beneath = DeadlineLayer::new(inner).clock(clock);
        let mut task = call(
            &mut layer.layer(beneath.layer(Inner::default())),
            Ask::Never,
        );
        assert_eq!(poll(&mut task), Now::Pending);
        assert_eq!(
            (time.timers(), time.timers_registered()),
            (1, 1),
            "one a call"
        );
        time.advance(300 * MS);
        assert_eq!(exceeded(task.poll()).limit(), 300 * MS);
    }
}

#[test]
fn a_deadline_ends_with_what_is_beneath_it() {
    let (outer, clock, time) = deadline(10 * SECOND);
    let nested = DeadlineLayer::new(SECOND)
        .clock(clock)
        .layer(Inner::default());
    // As a retry does, or a handler that calls one service after the other.
    let twice = tower::service_fn(move |_: Ask| {
        let mut nested = nested.clone();
        async move {
            let error = nested.call(Ask::Never).await.expect_err("it never answers");
            assert!(error.is::<DeadlineExceeded>());
            nested.call(Ask::Later(1)).await
        }
    });
    let mut task = call(&mut outer.layer(twice), Ask::Answer);
    assert_eq!(poll(&mut task), Now::Pending);
    time.advance(SECOND);
    assert_eq!(
        poll(&mut task),
        Now::Pending,
        "the second has its own second"
    );
    assert_eq!(poll(&mut task), Now::Answered);
}

#[test]
fn a_deadline_holds_where_user_code_polls_with_wakers_of_its_own() {
    let (outer, clock, time) = deadline(10 * SECOND);
    let nested = DeadlineLayer::new(SECOND)
        .clock(clock)
        .layer(Inner::default());
    let all = tower::service_fn(move |_: Ask| {
        let mut nested = nested.clone();
        let calls: FuturesUnordered<_> = (0..3).map(|_| nested.call(Ask::Never)).collect();
        async move {
            let ended: Vec<_> = calls.collect().await;
            assert!(ended.iter().all(Result::is_err));
            Ok::<_, Failed>("answer")
        }
    });
    let mut task = call(&mut outer.layer(all), Ask::Answer);
    assert_eq!(poll(&mut task), Now::Pending);
    time.advance(SECOND);
    assert!(task.is_woken());
    assert_eq!(poll(&mut task), Now::Answered);
}

#[test]
fn a_deadline_that_has_passed_refuses_without_calling() {
    let (layer, clock, _) = deadline(SECOND);
    let inner = Inner::default();
    let mut late = pin!(layer.layer(inner.clone()).call(Ask::Answer));
    let mut outer = pin!(frame::Call::new());
    let mut cx = Context::from_waker(Waker::noop());
    let answer = outer.as_mut().poll(&clock, &mut cx, |cx| {
        frame::shorten_deadline(frame::now(&clock));
        late.as_mut().poll(cx)
    });
    let error = exceeded(answer);
    assert!(error.limit().is_zero());
    assert_eq!(
        error.to_string(),
        "deadline exceeded: it had passed before the call began"
    );
    assert_eq!(inner.called(), 0);
}

#[test]
fn no_time_at_all_refuses_every_call() {
    let (layer, _, time) = deadline(Duration::ZERO);
    let inner = Inner::default();
    assert_eq!(
        poll(&mut call(&mut layer.layer(inner.clone()), Ask::Answer)),
        NEVER_BEGUN
    );
    assert_eq!(
        poll(&mut call(
            &mut layer.over(inner.clone()),
            Ask::PanicLater(0)
        )),
        NEVER_BEGUN
    );
    assert_eq!(inner.called(), 1, "only directly, and not polled");
    assert_eq!(time.timers_registered(), 0);
}

#[test]
fn a_deadline_past_the_end_of_time_never_comes() {
    let (layer, _, time) = deadline(Duration::MAX);
    let mut task = call(&mut layer.layer(Inner::default()), Ask::Later(1));
    assert_eq!(poll(&mut task), Now::Pending);
    assert_eq!(time.timers_registered(), 0);
    assert_eq!(poll(&mut task), Now::Answered);
}

#[test]
fn no_timer_is_armed_for_a_call_that_is_answered_at_once() {
    let (layer, _, time) = deadline(SECOND);
    let mut service = layer.layer(Inner::default());
    assert_eq!(poll(&mut call(&mut service, Ask::Answer)), Now::Answered);
    assert_eq!(poll(&mut call(&mut service, Ask::Fail)), Now::Failed);
    assert_eq!((time.reads(), time.timers_registered()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn it_works_on_tokios_clock() {
    let mut service = DeadlineLayer::new(250 * MS).layer(Inner::default());
    let clock = Clock::tokio();
    let start = clock.now();
    let error = service.call(Ask::Never).await.unwrap_err();
    assert!(error.is::<DeadlineExceeded>());
    let took = clock.now().since(start);
    assert!(took >= 250 * MS && took < 252 * MS, "I11: {took:?}");
}

/// Asks the time where a balancer does: before and after the inner service, from which it hides the frame.
fn leaf(
    clock: Clock,
) -> impl Service<Ask, Response = &'static str, Error = Failed, Future: Send> + Clone {
    let mut inner = Inner::default();
    tower::service_fn(move |ask| {
        let (clock, mut call) = (clock.clone(), Box::pin(inner.call(ask)));
        let mut began = false;
        std::future::poll_fn(move |cx| {
            if !std::mem::replace(&mut began, true) {
                frame::begin_attempt(frame::now(&clock));
            }
            let result = ready!(frame::hidden(|| call.as_mut().poll(cx)));
            frame::now(&clock);
            Poll::Ready(result)
        })
    })
}

#[test]
fn a_call_through_many_layers_reads_the_clock_twice_and_arms_one_timer() {
    let (layer, clock, time) = deadline(SECOND);
    let beneath = DeadlineLayer::new(2 * SECOND).clock(clock.clone());
    let limited = bulkhead(1).queue(1).clock(clock.clone()).layer(leaf(clock));
    let mut service = layer.layer(beneath.layer(limited));
    let mut task = call(&mut service, Ask::Later(1));
    assert_eq!(poll(&mut task), Now::Pending);
    assert_eq!(poll(&mut task), Now::Answered);
    assert_eq!((time.reads(), time.timers_registered()), (2, 1));
    drop(task);
    assert_eq!(time.timers(), 0);
}

fn go_through(phases: &[Phase], clock: &Clock) {
    for phase in phases {
        frame::enter(*phase, frame::now(clock));
        if *phase == Phase::Attempt {
            frame::begin_attempt(frame::now(clock));
        }
    }
}

/// Goes through all that a call can spend its time on, a tick each.
fn wanderer(clock: Clock) -> impl Service<Ask, Response = &'static str, Error = Failed> + Clone {
    tower::service_fn(move |_| {
        let clock = clock.clone();
        let mut phases = vec![Phase::Attempt, Phase::Backoff, Phase::Attempt, Phase::Queue];
        phases.push(Phase::Discovery);
        std::future::poll_fn(move |_| {
            go_through(phases.pop().as_slice(), &clock);
            Poll::<Result<_, Failed>>::Pending
        })
    })
}

#[test]
fn the_error_says_where_the_time_went() {
    let (layer, clock, time) = deadline(10 * MS);
    let mut task = call(&mut layer.layer(wanderer(clock)), Ask::Never);
    for _ in 0..5 {
        assert_eq!(poll(&mut task), Now::Pending);
        time.advance(2 * MS);
    }
    let error = exceeded(task.poll());
    let spent = error.spent();
    assert_eq!((spent.attempt, spent.phase), (2, Phase::Attempt));
    assert_eq!(spent.attempts, 4 * MS);
    assert_eq!(
        error.to_string(),
        "deadline exceeded: the call had 10ms, of which 2ms waiting for the registry, \
         2ms waiting for a permit, 4ms in 2 attempts, 2ms between attempts"
    );
}

#[test]
fn what_never_got_to_an_attempt_was_surely_not_sent() {
    let cases: [(&[Phase], Now); 6] = [
        (&[], TOO_LATE),
        (&[Phase::Discovery], NEVER_BEGUN),
        (&[Phase::Queue], NEVER_BEGUN),
        (&[Phase::Discovery, Phase::Queue], NEVER_BEGUN),
        (&[Phase::Queue, Phase::Attempt], TOO_LATE),
        (&[Phase::Attempt, Phase::Backoff], TOO_LATE),
    ];
    for (phases, expected) in cases {
        let (layer, clock, time) = deadline(10 * MS);
        let service = tower::service_fn(|_: Ask| {
            go_through(phases, &clock);
            std::future::pending::<Result<_, Failed>>()
        });
        let mut task = call(&mut layer.layer(service), Ask::Never);
        assert_eq!(poll(&mut task), Now::Pending);
        time.advance(10 * MS);
        assert_eq!(poll(&mut task), expected, "{phases:?}");
    }
}

#[test]
fn errors_of_the_inner_service_pass_unchanged() {
    let (layer, _, _) = deadline(SECOND);
    let mut task = spawn(layer.layer(Inner::default()).call(Ask::Fail));
    let Poll::Ready(Err(error)) = task.poll() else {
        panic!("it was asked to fail");
    };
    assert_eq!(error.downcast_ref::<Failed>(), Some(&Failed));
}

// I10
#[test]
fn a_panic_leaves_the_thread_as_it_was() {
    let (layer, clock, time) = deadline(SECOND);
    let inner = Inner::default();
    let mut service = layer.layer(inner.clone());
    let mut task = call(&mut service, Ask::PanicLater(1));
    assert_eq!(poll(&mut task), Now::Pending);
    assert!(catch_unwind(AssertUnwindSafe(|| task.poll())).is_err());
    drop(task);
    assert_eq!((frame::deadline(), time.timers()), (None, 0));
    let reads = time.reads();
    frame::now(&clock);
    assert_eq!(time.reads(), reads + 1, "no frame was left open");
    assert_eq!(poll(&mut call(&mut service, Ask::Answer)), Now::Answered);
}

#[test]
fn the_deadline_is_what_layers_beneath_see() {
    let (layer, clock, _) = deadline(SECOND);
    let end = clock.now() + SECOND;
    let service = tower::service_fn(move |_: Ask| async move {
        assert_eq!(frame::deadline(), Some(end));
        Ok::<_, Failed>("answer")
    });
    assert_eq!(
        poll(&mut call(&mut layer.layer(service), Ask::Answer)),
        Now::Answered
    );
}
