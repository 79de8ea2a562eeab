//! The adaptive limit through its layers.

use std::time::Duration;

use tower_layer::Layer;
use tower_mesh_core::{
    Attempt, Clock, Endpoint, Finish, ManualClock, NewLayer, Outcome, Sampling,
    testing::contract::{Contract, Inner as ContractInner, Subject},
};
use tower_mesh_limit::{
    Adaptive, AdaptiveLimit, AdaptiveLimitLayer, BulkheadHandle, BulkheadLayer, DeadlineLayer,
    adaptive::{Gradient, Gradient2, Why},
};

use super::{Ask, Inner, MS, Now, OVERLOADED, SECOND, call, non_zero, poll};

/// A bulkhead that adapts, on a clock that stands still.
fn adaptive(max: usize, adaptive: Adaptive) -> (BulkheadLayer, AdaptiveLimit, Clock, ManualClock) {
    let (clock, time) = Clock::manual();
    let layer = BulkheadLayer::new(non_zero(max))
        .adaptive(adaptive)
        .clock(clock.clone());
    let limit = layer.adaptive_limit();
    (layer, limit, clock, time)
}

fn endpoint(limit: &AdaptiveLimit) -> Endpoint {
    let endpoint = Endpoint::new(([10, 0, 0, 1], 80).into());
    limit.layer_for(&endpoint);
    endpoint
}

fn begin(endpoint: &Endpoint, clock: &Clock) -> Attempt {
    let vitals = endpoint.vitals();
    vitals.attempt(clock, Sampling::Mean).expect("it is open")
}

fn attempts(endpoint: &Endpoint, clock: &Clock, number: usize, outcome: Outcome) {
    (0..number).for_each(|_| begin(endpoint, clock).finish(outcome));
}

fn at(limit: &AdaptiveLimit) -> (usize, Why) {
    let snapshot = limit.snapshot();
    (snapshot.limit, snapshot.why)
}

/// Brings the limit to its minimum.
fn fall(endpoint: &Endpoint, clock: &Clock) {
    attempts(endpoint, clock, 5, Outcome::timeout());
}

#[test]
fn timeouts_and_overload_lower_it_and_other_failures_do_not() {
    for (outcome, lowers) in [
        (Outcome::timeout(), true),
        (Outcome::overload(), true),
        (Outcome::failure(), false),
        (Outcome::failure().never_sent(), false),
        (Outcome::neutral(), false),
        (Outcome::success(), false),
    ] {
        let (_, limit, clock, _) = adaptive(100, Adaptive::new());
        attempts(&endpoint(&limit), &clock, 100, outcome);
        let expected = if lowers {
            (1, Why::Outage)
        } else {
            (100, Why::Start)
        };
        assert_eq!(at(&limit), expected, "{outcome:?}");
    }
}

#[test]
fn it_keeps_nobody_from_an_endpoint() {
    let (_, limit, clock, _) = adaptive(100, Adaptive::new());
    let endpoint = endpoint(&limit);
    fall(&endpoint, &clock);
    assert!(endpoint.vitals().gate().is_open());
}

#[test]
fn lowered_beneath_what_runs_it_admits_nobody_until_enough_have_ended() {
    let (layer, limit, clock, _) = adaptive(3, Adaptive::new());
    let mut service = layer.layer(Inner::default());
    let mut running: Vec<_> = (0..3).map(|_| call(&mut service, Ask::Never)).collect();
    assert!(running.iter_mut().all(|task| poll(task) == Now::Pending));
    fall(&endpoint(&limit), &clock);
    assert_eq!((limit.snapshot().limit, limit.snapshot().in_use), (1, 3));
    for left in [2, 1] {
        running.pop();
        assert_eq!(limit.snapshot().in_use, left);
        assert_eq!(poll(&mut call(&mut service, Ask::Answer)), OVERLOADED);
    }
    running.pop();
    assert_eq!(poll(&mut call(&mut service, Ask::Answer)), Now::Answered);
}

#[test]
fn who_waits_gets_in_when_it_grows() {
    let (clock, _) = Clock::manual();
    let layer = BulkheadLayer::new(non_zero(10))
        .adaptive(Adaptive::new())
        .queue(5)
        .clock(clock.clone());
    let limit = layer.adaptive_limit();
    let mut service = layer.layer(Inner::default());
    fall(&endpoint(&limit), &clock);
    for _ in 0..4 {
        assert_eq!(poll(&mut call(&mut service, Ask::Answer)), Now::Answered);
    }
    assert_eq!(at(&limit), (2, Why::Growth));
    let mut running = [
        call(&mut service, Ask::Never),
        call(&mut service, Ask::Never),
    ];
    assert!(running.iter_mut().all(|task| poll(task) == Now::Pending));
    let mut waiting = call(&mut service, Ask::Answer);
    assert_eq!(poll(&mut waiting), Now::Pending);
    limit.restore(non_zero(3));
    assert!(waiting.is_woken());
    assert_eq!(poll(&mut waiting), Now::Answered);
}

#[test]
fn what_was_sent_before_it_was_lowered_says_nothing() {
    let (_, limit, clock, time) = adaptive(100, Adaptive::new().min(non_zero(8)));
    let endpoint = endpoint(&limit);
    let earlier: Vec<_> = (0..50).map(|_| begin(&endpoint, &clock)).collect();
    time.advance(MS);
    fall(&endpoint, &clock);
    limit.restore(non_zero(50));
    for mut attempt in earlier {
        attempt.finish(Outcome::timeout());
    }
    assert_eq!(at(&limit), (50, Why::Restored));
    fall(&endpoint, &clock);
    assert_eq!(at(&limit), (8, Why::Outage));
}

#[test]
fn after_half_a_minute_of_quiet_it_is_as_at_the_start() {
    let (layer, limit, clock, time) = adaptive(100, Adaptive::new());
    let mut service = layer.layer(Inner::default());
    fall(&endpoint(&limit), &clock);
    limit.restore(non_zero(10));
    time.advance(29 * SECOND);
    assert_eq!(poll(&mut call(&mut service, Ask::Answer)), Now::Answered);
    assert_eq!(at(&limit), (10, Why::Restored));
    time.advance(SECOND);
    assert_eq!(poll(&mut call(&mut service, Ask::Answer)), Now::Answered);
    assert_eq!(at(&limit), (100, Why::Forgotten));
}

#[test]
fn a_restored_limit_stays_within_its_bounds() {
    let (_, limit, _, _) = adaptive(100, Adaptive::new().min(non_zero(5)));
    for (restored, expected) in [(7, 7), (2, 5), (1_000, 100)] {
        limit.restore(non_zero(restored));
        assert_eq!(at(&limit), (expected, Why::Restored));
    }
}

#[test]
fn suspended_it_is_the_fixed_limit_and_resumed_it_learns_anew() {
    let (_, limit, clock, _) = adaptive(100, Adaptive::new());
    let endpoint = endpoint(&limit);
    fall(&endpoint, &clock);
    limit.suspend();
    attempts(&endpoint, &clock, 50, Outcome::timeout());
    assert_eq!(limit.snapshot().limit, 100);
    assert!(!limit.snapshot().adapts);
    limit.resume();
    fall(&endpoint, &clock);
    assert_eq!(limit.snapshot().limit, 1);
}

#[test]
fn a_fixed_limit_hears_nothing() {
    let layer = BulkheadLayer::new(non_zero(100)).adaptive(None);
    let limit = layer.adaptive_limit();
    let endpoint = endpoint(&limit);
    attempts(&endpoint, &Clock::manual().0, 50, Outcome::timeout());
    let judge = endpoint
        .vitals()
        .gate()
        .judge(tower_mesh_core::JudgeKind::Limit);
    assert!(judge.is_none());
    assert!(!limit.snapshot().adapts);
    assert_eq!(limit.snapshot().limit, 100);
}

#[test]
fn a_handle_moves_the_upper_bound() {
    let (layer, limit, clock, _) = adaptive(100, Adaptive::new());
    let handle: BulkheadHandle = layer.handle();
    handle.set_limit(non_zero(50));
    assert_eq!((limit.snapshot().limit, limit.snapshot().max), (50, 50));
    fall(&endpoint(&limit), &clock);
    handle.set_limit(non_zero(80));
    assert_eq!((limit.snapshot().limit, limit.snapshot().max), (1, 80));
}

// A reload makes new layers over the endpoints that are there.
#[test]
fn two_limits_hear_of_the_same_endpoint_and_so_does_one_that_wants_latencies() {
    let (layer, first, clock, _) = adaptive(100, Adaptive::new());
    let endpoint = endpoint(&first);
    let later = |adaptive| {
        let layer = BulkheadLayer::new(non_zero(100)).adaptive(Some(adaptive));
        let limit = layer.clock(clock.clone()).adaptive_limit();
        limit.layer_for(&endpoint);
        limit
    };
    let second = later(Adaptive::new());
    drop((layer, first));
    fall(&endpoint, &clock);
    assert_eq!(second.snapshot().limit, 1);
    let hears = || {
        let judge = endpoint
            .vitals()
            .gate()
            .judge(tower_mesh_core::JudgeKind::Limit);
        judge.expect("attached").hears_successes()
    };
    assert!(!hears());
    let _third = later(Adaptive::new().algorithm(Gradient::new));
    assert!(hears());
}

#[test]
fn a_gradient_learns_from_how_long_attempts_take() {
    let gradient = Adaptive::new()
        .start(non_zero(20))
        .algorithm(Gradient2::new);
    let (layer, limit, clock, time) = adaptive(200, gradient);
    let endpoint = endpoint(&limit);
    let mut service = layer.layer(Inner::default());
    let mut running: Vec<_> = (0..20).map(|_| call(&mut service, Ask::Never)).collect();
    assert!(running.iter_mut().all(|task| poll(task) == Now::Pending));
    for _ in 0..60 {
        let mut attempt = begin(&endpoint, &clock);
        time.advance(100 * MS);
        attempt.finish(Outcome::success());
    }
    let (limit, why) = at(&limit);
    assert!((21..=24).contains(&limit) && why == Why::Latency, "{limit}");
}

/// Ends calls of `ask` by a deadline, until the limit has heard of `number`.
fn time_out(number: usize) -> AdaptiveLimit {
    let (clock, time) = Clock::manual();
    let layer = AdaptiveLimitLayer::new(non_zero(100)).clock(clock.clone());
    let limit = layer.limit();
    let deadline = DeadlineLayer::new(SECOND).clock(clock);
    let mut service = deadline.layer(layer.layer(Inner::default()));
    for _ in 0..number {
        let mut running = call(&mut service, Ask::Never);
        assert_eq!(poll(&mut running), Now::Pending);
        time.advance(SECOND);
        assert!(matches!(poll(&mut running), Now::Refused(..)));
    }
    limit
}

#[test]
fn alone_it_takes_the_end_of_a_deadline_above_it_for_a_timeout() {
    assert_eq!(time_out(4).snapshot().limit, 100);
    assert_eq!(at(&time_out(5)), (1, Why::Outage));
}

#[test]
fn alone_it_takes_a_caller_who_goes_away_for_nothing() {
    let layer = AdaptiveLimitLayer::new(non_zero(100)).clock(Clock::manual().0);
    let limit = layer.limit();
    let mut service = layer.layer(Inner::default());
    for _ in 0..20 {
        assert_eq!(poll(&mut call(&mut service, Ask::Never)), Now::Pending);
    }
    assert_eq!(at(&limit), (100, Why::Start));
    assert_eq!(limit.snapshot().in_use, 0);
}

#[test]
fn alone_it_judges_answers_by_a_classifier() {
    let busy =
        |_: Result<&&str, &(dyn std::error::Error + Send + Sync + 'static)>| Outcome::overload();
    let layer = AdaptiveLimitLayer::new(non_zero(100)).clock(Clock::manual().0);
    let layer = layer.classify(busy);
    let mut service = layer.layer(Inner::default());
    for _ in 0..5 {
        assert_eq!(poll(&mut call(&mut service, Ask::Answer)), Now::Answered);
    }
    assert_eq!(at(&layer.limit()), (1, Why::Outage));
}

// peers: tower-resilience #365, over-admission across clones and a leak on drop
#[test]
fn services_of_one_layer_share_its_limit_and_dropped_calls_give_it_back() {
    let layer = AdaptiveLimitLayer::new(non_zero(2)).clock(Clock::manual().0);
    let mut services = [
        layer.layer(Inner::default()),
        layer.clone().layer(Inner::default()),
    ];
    for _ in 0..10 {
        let mut running: Vec<_> = (services.iter_mut())
            .map(|service| call(service, Ask::Never))
            .collect();
        assert!(running.iter_mut().all(|task| poll(task) == Now::Pending));
        for service in &mut services {
            assert_eq!(poll(&mut call(service, Ask::Answer)), OVERLOADED);
        }
    }
    assert_eq!(layer.limit().snapshot().in_use, 0);
}

#[test]
fn a_burst_from_idle_and_one_call_at_a_time_meet_no_limit_that_was_not_reached() {
    let (layer, limit, clock, time) = adaptive(1_024, Adaptive::new());
    let endpoint = endpoint(&limit);
    let mut service = layer.layer(Inner::default());
    for _ in 0..200 {
        assert_eq!(poll(&mut call(&mut service, Ask::Answer)), Now::Answered);
        time.advance(Duration::from_secs(1));
    }
    // A call that was slow now and then is no reason either.
    for _ in 0..20 {
        attempts(&endpoint, &clock, 1, Outcome::timeout());
        (0..20).for_each(|_| assert_eq!(poll(&mut call(&mut service, Ask::Answer)), Now::Answered));
    }
    let mut burst: Vec<_> = (0..1_024).map(|_| call(&mut service, Ask::Never)).collect();
    assert!(burst.iter_mut().all(|task| poll(task) == Now::Pending));
}

#[tokio::test(start_paused = true)]
async fn it_keeps_the_contract_of_a_service() {
    let inner = |inner: ContractInner<&'static str>| {
        let layer = AdaptiveLimitLayer::new(non_zero(10));
        let limit = layer.limit();
        Subject::new(layer.layer(inner)).at_rest(move || match limit.snapshot().in_use {
            0 => Ok(()),
            out => Err(format!("{out} permits are out")),
        })
    };
    let contract = Contract::new(|| "request", || "response");
    contract.check(inner).await.expect("it keeps the contract");
}
