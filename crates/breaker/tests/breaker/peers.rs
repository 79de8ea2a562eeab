//! What the peers do where we do otherwise: each assertion holds for ours and fails for them.

mod calls;

use std::{
    future::{pending, ready},
    time::Duration,
};

use allocation_counter::measure;
use failsafe::{StateMachine, backoff, failure_policy};
use futures_util::FutureExt;
use recloser::{AsyncRecloser, Recloser};
use tower::{Layer, Service, service_fn};
use tower_mesh_breaker::{BreakerLayer, State, Window};
use tower_mesh_core::{Finish, Outcome, Ratio, frame};
use tower_resilience_circuitbreaker::{
    CircuitBreakerConfigBuilder, CircuitBreakerLayer, CircuitState, DefaultClassifier,
    SlidingWindowType,
};

use crate::{Ask, MS, S, Target, after, answer, ask, service};

const LONG: Duration = Duration::from_secs(3_600);

/// A window of a hundred calls, of which half may not fail.
fn last_hundred() -> tower_mesh_breaker::Policy {
    after(0)
        .failure_rate(Ratio::percent(50))
        .window(Window::last(
            std::num::NonZeroU16::new(100).expect("not zero"),
        ))
}

fn resilience() -> CircuitBreakerConfigBuilder<DefaultClassifier> {
    CircuitBreakerLayer::builder()
        .failure_rate_threshold(0.5)
        .sliding_window_size(100)
        .wait_duration_in_open(Duration::ZERO)
}

/// A service that is ready: theirs has to be made so before each call.
fn ask_peer<S: Service<Ask>>(service: &mut S, request: Ask) -> Option<bool> {
    let readied = std::future::poll_fn(|cx| service.poll_ready(cx)).now_or_never()?;
    if readied.is_err() {
        return Some(false);
    }
    Some(service.call(request).now_or_never()?.is_ok())
}

/// How many failures it takes to open after ten thousand successes.
fn failures_to_open(mut call: impl FnMut(Ask), is_open: impl Fn() -> bool) -> u32 {
    for _ in 0..10_000 {
        call(Ask::Succeed);
    }
    let mut failures = 0;
    while !is_open() {
        failures += 1;
        call(Ask::Fail);
    }
    failures
}

#[test]
fn flaw_t1_the_window_slides() {
    let layer = BreakerLayer::new(last_hundred());
    let mut ours = service(&layer);
    let failures = failures_to_open(
        |request| drop(ask(&mut ours, request)),
        || layer.handle().state() == State::Open,
    );
    assert_eq!(failures, 50);

    let (layer, handle) = resilience()
        .wait_duration_in_open(LONG)
        .build_with_handle()
        .expect("it is valid");
    let mut theirs = layer.layer(service_fn(answer));
    let failures = failures_to_open(
        |request| {
            ask_peer(&mut theirs, request);
        },
        || handle.is_open(),
    );
    assert_eq!(failures, 10_000);
}

#[test]
fn flaw_t2_good_probes_close_it_however_slowly_they_come() {
    let ours = Target::new(
        after(1)
            .window(Window::over(10 * MS))
            .probes(std::num::NonZeroU8::new(3).expect("not zero")),
    );
    ours.fail();
    for _ in 0..3 {
        ours.time.advance(60 * S);
        ours.succeed();
    }
    assert_eq!(ours.breaker().state(), State::Closed);

    // Every probe has left a window of a nanosecond before the next comes.
    let (layer, handle) = resilience()
        .sliding_window_type(SlidingWindowType::TimeBased)
        .sliding_window_duration(Duration::from_nanos(1))
        .minimum_number_of_calls(1)
        .consecutive_failures(1)
        .permitted_calls_in_half_open(3)
        .build_with_handle()
        .expect("it is valid");
    let mut theirs = layer.layer(service_fn(answer));
    ask_peer(&mut theirs, Ask::Fail);
    for _ in 0..3 {
        assert_eq!(ask_peer(&mut theirs, Ask::Succeed), Some(true));
    }
    assert_eq!(ask_peer(&mut theirs, Ask::Succeed), Some(false), "wedged");
    assert_eq!(handle.state(), CircuitState::HalfOpen);
}

#[test]
fn flaw_t3_a_probe_that_never_returns_does_not_block_recovery() {
    let (clock, time) = tower_mesh_core::Clock::manual();
    let layer = BreakerLayer::new(after(1)).clock(clock);
    let mut ours = service(&layer);
    let _ = ask(&mut ours, Ask::Fail);
    time.advance(S);
    let mut hung = Box::pin(ours.call(Ask::Hang));
    assert!(hung.as_mut().now_or_never().is_none());
    time.advance(LONG);
    assert!(ask(&mut ours, Ask::Succeed).is_ok());
    assert_eq!(layer.handle().state(), State::Closed);

    let (layer, handle) = resilience()
        .consecutive_failures(1)
        .permitted_calls_in_half_open(1)
        .build_with_handle()
        .expect("it is valid");
    let mut theirs = layer.layer(service_fn(answer));
    ask_peer(&mut theirs, Ask::Fail);
    let mut other = theirs.clone();
    let mut hung = Box::pin(theirs.call(Ask::Hang));
    assert!(hung.as_mut().now_or_never().is_none());
    for _ in 0..100 {
        assert_eq!(ask_peer(&mut other, Ask::Succeed), Some(false));
    }
    // No timer leaves this state: there is none in it.
    assert_eq!(handle.state(), CircuitState::HalfOpen);
}

#[test]
fn flaw_t4_the_meshs_own_timeout_is_seen() {
    fn time_out<S: Service<Ask>>(service: &mut S) {
        let mut call = Box::pin(service.call(Ask::Hang));
        let _ = call.as_mut().now_or_never();
        frame::timing_out(|| drop(call));
    }

    let layer = BreakerLayer::new(last_hundred());
    let mut ours = service(&layer);
    (0..20).for_each(|_| time_out(&mut ours));
    assert_eq!(layer.handle().state(), State::Open);

    let (layer, handle) = resilience().build_with_handle().expect("it is valid");
    let mut theirs = layer.layer(service_fn(answer));
    (0..200).for_each(|_| time_out(&mut theirs));
    assert_eq!(handle.state(), CircuitState::Closed);
}

#[test]
fn flaw_t5_what_began_before_the_trip_does_not_decide_the_probes() {
    let ours = Target::new(after(1));
    let mut old = ours.attempt().expect("it is closed");
    ours.fail();
    ours.time.advance(S);
    let probe = ours.attempt().expect("its time is over");
    old.finish(Outcome::failure());
    assert_eq!(ours.breaker().state(), State::HalfOpen);
    drop(probe);

    let (layer, handle) = resilience()
        .consecutive_failures(1)
        .permitted_calls_in_half_open(1)
        .build_with_handle()
        .expect("it is valid");
    let (send, late) = tokio::sync::oneshot::channel::<()>();
    let late = late.shared();
    let mut theirs = layer.layer(service_fn(move |request: Ask| {
        let late = late.clone();
        async move {
            match request {
                Ask::Take(..) => late.await.map_err(std::io::Error::other).map(|()| "late"),
                request => answer(request).await,
            }
        }
    }));
    let mut other = theirs.clone();
    let (_, time) = tower_mesh_core::Clock::manual();
    let mut old = Box::pin(theirs.call(Ask::Take(S, time)));
    assert!(old.as_mut().now_or_never().is_none());
    ask_peer(&mut other, Ask::Fail);
    let mut probe = Box::pin(other.call(Ask::Hang));
    assert!(probe.as_mut().now_or_never().is_none());
    assert_eq!(handle.state(), CircuitState::HalfOpen);
    drop(send);
    assert!(old.now_or_never().expect("it is over").is_err());
    assert_eq!(
        handle.state(),
        CircuitState::Open,
        "reopened by a call from before"
    );
}

#[test]
fn flaw_t6_one_layer_value_is_one_breaker() {
    let ours = BreakerLayer::new(after(2));
    for mut route in [service(&ours), service(&ours)] {
        let _ = ask(&mut route, Ask::Fail);
    }
    assert!(ask(&mut service(&ours), Ask::Succeed).is_err());

    let theirs = resilience()
        .wait_duration_in_open(LONG)
        .consecutive_failures(2)
        .build()
        .expect("it is valid");
    for _ in 0..10 {
        ask_peer(&mut theirs.layer(service_fn(answer)), Ask::Fail);
    }
    assert_eq!(
        ask_peer(&mut theirs.layer(service_fn(answer)), Ask::Succeed),
        Some(true)
    );
}

#[test]
fn flaw_t8_memory_does_not_grow_with_the_calls_in_the_window() {
    let ours = Target::new(after(7).failure_rate(Ratio::ONE).window(Window::over(LONG)));
    let cost = measure(|| (0..10_000).for_each(|_| ours.succeed()));
    assert_eq!(cost.bytes_current, 0);

    let (layer, _) = resilience()
        .sliding_window_type(SlidingWindowType::TimeBased)
        .sliding_window_duration(LONG)
        .build_with_handle()
        .expect("it is valid");
    let mut theirs = layer.layer(service_fn(answer));
    let cost = measure(|| {
        for _ in 0..1_000 {
            ask_peer(&mut theirs, Ask::Succeed);
        }
    });
    assert!(cost.bytes_current > 10 * 1_000, "{cost:?}");
}

#[tokio::test(start_paused = true)]
async fn flaw_t9_paused_time_is_its_time() {
    let layer = BreakerLayer::new(after(1));
    let mut ours = service(&layer);
    let _ = ask(&mut ours, Ask::Fail);
    let (layer, handle) = resilience()
        .wait_duration_in_open(60 * S)
        .consecutive_failures(1)
        .build_with_handle()
        .expect("it is valid");
    let mut theirs = layer.layer(service_fn(answer));
    ask_peer(&mut theirs, Ask::Fail);

    tokio::time::advance(LONG).await;
    assert!(ask(&mut ours, Ask::Succeed).is_ok());
    assert_eq!(ask_peer(&mut theirs, Ask::Succeed), Some(false));
    assert_eq!(handle.state(), CircuitState::Open);
}

/// How many of a thousand calls, all under way at once, are admitted.
fn admitted(mut admit: impl FnMut() -> bool) -> usize {
    (0..1_000).filter(|_| admit()).count()
}

#[test]
fn flaws_f1_and_f2_half_open_admits_no_more_probes_than_it_needs() {
    let ours = Target::new(after(1));
    ours.fail();
    ours.time.advance(S);
    let mut out = Vec::new();
    assert_eq!(
        admitted(|| ours.attempt().map(|probe| out.push(probe)).is_ok()),
        1
    );

    let policy = failure_policy::consecutive_failures(1, backoff::constant(Duration::ZERO));
    let failsafe = StateMachine::new(policy, ());
    failsafe.on_error();
    assert_eq!(admitted(|| failsafe.is_call_permitted()), 1_000);

    let recloser = Recloser::custom()
        .closed_len(1)
        .half_open_len(5)
        .error_rate(0.5)
        .open_wait(Duration::ZERO)
        .build();
    let recloser = AsyncRecloser::from(recloser);
    for _ in 0..2 {
        let failed = recloser.call(ready(Err::<(), _>(()))).now_or_never();
        assert!(failed.is_some());
    }
    let mut out = Vec::new();
    let count = admitted(|| {
        let mut call = Box::pin(recloser.call(pending::<Result<(), ()>>()));
        let is_refused = call.as_mut().now_or_never().is_some();
        out.push(call);
        !is_refused
    });
    assert_eq!(count, 1_000);
}

#[test]
fn flaw_f1_a_success_from_before_the_trip_does_not_close_it() {
    let ours = Target::new(after(1));
    let mut old = ours.attempt().expect("it is closed");
    ours.fail();
    ours.time.advance(S);
    drop(ours.attempt());
    old.finish(Outcome::success());
    assert_eq!(ours.breaker().state(), State::HalfOpen);

    let policy = failure_policy::consecutive_failures(1, backoff::constant(Duration::ZERO));
    let failsafe = StateMachine::new(policy, ());
    assert!(failsafe.is_call_permitted(), "the old call");
    failsafe.on_error();
    assert!(failsafe.is_call_permitted(), "the probe");
    failsafe.on_success();
    failsafe.on_error();
    let is_open = !failsafe.is_call_permitted();
    assert!(!is_open, "the old call's success has closed it");
}
