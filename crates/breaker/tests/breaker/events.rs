//! The stream of transitions.

use std::{collections::HashMap, num::NonZeroUsize};

use futures_util::{FutureExt, StreamExt};
use tower_mesh_breaker::{
    BreakerLayer, CircuitBreakerRegistry, Reason, State, Transition, Transitions,
};
use tower_mesh_core::{Clock, Endpoint, NewLayer, Outcome, Rng};

use crate::{S, Target, after};

fn next(transitions: &mut Transitions) -> Option<Transition> {
    let item = transitions.next().now_or_never()?;
    Some(
        item.expect("the layer is there")
            .expect("nothing was missed"),
    )
}

fn drain(transitions: &mut Transitions) -> Vec<(State, State, Reason)> {
    std::iter::from_fn(|| next(transitions))
        .map(|t| (t.from, t.to, t.reason))
        .collect()
}

#[test]
fn every_transition_is_told_with_its_reason() {
    let target = Target::new(after(2).ramp_up(S));
    let mut transitions = target.layer.transitions();
    target.fail();
    target.fail();
    target.time.advance(S);
    target.fail();
    target.time.advance(2 * S);
    target.succeed();
    target.time.advance(S);
    target.succeed();
    target.breaker().force_open();
    target.breaker().release_force();
    target.breaker().reset();
    assert_eq!(
        drain(&mut transitions),
        [
            (State::Closed, State::Open, Reason::ConsecutiveFailures),
            (State::Open, State::HalfOpen, Reason::OpenTimeOver),
            (State::HalfOpen, State::Open, Reason::ProbesFailed),
            (State::Open, State::HalfOpen, Reason::OpenTimeOver),
            (State::HalfOpen, State::Ramping, Reason::ProbesSucceeded),
            (State::Ramping, State::Closed, Reason::RampedUp),
            (State::Closed, State::ForcedOpen, Reason::Forced),
            (State::ForcedOpen, State::Closed, Reason::Released),
        ]
    );
}

#[test]
fn a_transition_says_who_when_and_in_what_order() {
    let target = Target::new(after(1));
    let mut transitions = target.layer.transitions();
    target.fail();
    target.time.advance(S);
    target.succeed();
    let told: Vec<_> = std::iter::from_fn(|| next(&mut transitions)).collect();
    assert!(told.iter().all(|t| &*t.name == "127.0.0.1:80"));
    assert!(told.is_sorted_by(|a, b| a.at <= b.at && a.epoch < b.epoch));
    assert_eq!(told[1].at.since(told[0].at), S);
}

// flaw T10
#[test]
fn counted_from_the_transitions_a_breaker_is_in_one_state() {
    /// How many states the gauge shows as current after a full cycle.
    fn shown(transitions: &[(State, State, Reason)], resets_the_old: bool) -> usize {
        let mut gauge = HashMap::from([(State::Closed, 1)]);
        for (from, to, _) in transitions {
            if resets_the_old {
                gauge.insert(*from, 0);
            }
            gauge.insert(*to, 1);
        }
        gauge.values().filter(|value| **value == 1).count()
    }

    let target = Target::new(after(1));
    let mut transitions = target.layer.transitions();
    target.fail();
    target.time.advance(S);
    target.succeed();
    let told = drain(&mut transitions);
    assert_eq!(shown(&told, true), 1);
    assert_eq!(shown(&told, false), 3, "as in tower-resilience");
    assert_eq!(told.last().map(|t| t.1), Some(target.breaker().state()));
}

#[test]
fn a_slow_listener_holds_up_nobody_and_learns_how_much_it_missed() {
    let target = Target::new(after(1));
    let mut slow = target.layer.transitions();
    let mut gone = target.layer.transitions();
    assert!(next(&mut gone).is_none());
    drop(gone);
    for _ in 0..1_000 {
        target.breaker().force_open();
        target.breaker().reset();
    }
    let missed = slow
        .next()
        .now_or_never()
        .flatten()
        .expect("something was told");
    assert_eq!(
        missed.expect_err("too much was told").count(),
        2_000 - 1_024
    );
    assert_eq!(drain(&mut slow).len(), 1_024);
}

#[test]
fn the_breakers_of_one_layer_are_told_in_one_stream_and_those_of_another_are_not() {
    let (clock, _) = Clock::manual();
    let layer = BreakerLayer::new(after(1)).clock(clock).name("orders");
    let mut transitions = layer.transitions();
    let endpoint = Endpoint::new(([127, 0, 0, 1], 81).into());
    layer.layer_for(&endpoint);
    layer.breaker(&endpoint).expect("it has one").force_open();
    layer.handle().force_closed();
    BreakerLayer::default().handle().force_open();
    let names: Vec<_> = std::iter::from_fn(|| next(&mut transitions))
        .map(|t| t.name.to_string())
        .collect();
    assert_eq!(names, ["127.0.0.1:81", "orders"]);
}

#[tokio::test]
async fn the_stream_wakes_its_listener_and_ends_with_the_layer() {
    let registry = CircuitBreakerRegistry::default()
        .rng(Rng::seeded(1))
        .capacity(NonZeroUsize::MIN);
    let mut transitions = registry.transitions();
    let breaker = registry.get_or_create("tenant-1").expect("there is room");
    let mut waiting = tokio_test::task::spawn(transitions.next());
    assert!(waiting.poll().is_pending());
    breaker.force_open();
    assert!(waiting.is_woken());
    drop(waiting);
    assert_eq!(
        next(&mut transitions).map(|t| t.to),
        Some(State::ForcedOpen)
    );
    drop((registry, breaker));
    assert!(transitions.next().await.is_none());
}

#[test]
fn a_renewed_lease_is_no_transition() {
    let target = Target::new(after(1));
    target.fail();
    target.time.advance(S);
    let hung = target.attempt().expect("its time is over");
    let since = target.breaker().snapshot().since;
    let mut transitions = target.layer.transitions();
    target.time.advance(60 * S);
    target.call(Outcome::neutral(), S);
    let renewed = target.breaker().snapshot();
    assert_eq!((renewed.state, renewed.since), (State::HalfOpen, since));
    assert!(drain(&mut transitions).is_empty());
    drop(hung);
    assert_eq!(target.breaker().snapshot().probes_out, 0);
}
