//! What changes under breakers that run: their policy, and what another process knew of their endpoint.

use tower_mesh_breaker::{BreakerLayer, CircuitBreakerRegistry, Policy, State, Window};
use tower_mesh_core::Ratio;

use crate::{S, Target, after};

/// The seconds for which it stays open; it may tell them early by half a microsecond.
fn rest(target: &Target) -> Option<f64> {
    let rest = target.breaker().snapshot().retry_after();
    rest.map(|rest| (rest.as_secs_f64() * 1e3).round() / 1e3)
}

#[test]
fn a_new_policy_holds_for_breakers_that_are_there_and_keeps_what_they_counted() {
    let target = Target::new(after(5));
    target.fail();
    target.fail();
    target.layer.follow(after(3).open_for(7 * S)).unwrap();
    assert_eq!(target.breaker().state(), State::Closed);
    target.fail();
    assert_eq!(target.breaker().state(), State::Open);
    assert_eq!(rest(&target), Some(7.0));
}

#[test]
fn a_breaker_that_is_open_stays_so_until_the_time_that_it_was_given() {
    let target = Target::new(after(1));
    target.fail();
    target.layer.follow(after(1).open_for(60 * S)).unwrap();
    assert_eq!(rest(&target), Some(1.0));
}

#[test]
fn a_policy_that_counts_otherwise_is_refused_and_changes_nothing() {
    let target = Target::new(after(2));
    for other in [
        after(1).window(Window::over(60 * S)),
        after(1).failure_rate(Ratio::percent(50)),
        after(1).slow_calls(S, Ratio::percent(50)),
    ] {
        let refused = target.layer.follow(other.clone()).unwrap_err();
        assert!(refused.to_string().contains("window"), "{other:?}");
        target.fail();
        assert_eq!(target.breaker().state(), State::Closed);
        target.succeed();
    }
}

#[test]
fn layers_made_of_each_other_change_apart_and_clones_together() {
    let layer = BreakerLayer::new(after(9));
    let (same, other) = (layer.clone(), layer.clone().name("other"));
    layer.follow(after(1)).unwrap();
    let shows = |layer: &BreakerLayer| format!("{layer:?}");
    assert!(shows(&same).contains("consecutive: Some(1)"));
    assert!(shows(&other).contains("consecutive: Some(9)"));
    let registry = CircuitBreakerRegistry::new(Policy::default());
    assert!(registry.follow(Policy::default().open_for(5 * S)).is_ok());
}

#[test]
fn what_was_open_elsewhere_is_open_for_the_rest_of_its_time() {
    let target = Target::new(after(1));
    target.breaker().reopen(3 * S, 4);
    let snapshot = target.breaker().snapshot();
    assert_eq!(snapshot.state, State::Open);
    assert_eq!(rest(&target), Some(3.0));
    assert_eq!((snapshot.openings, snapshot.opened), (4, 1));
    assert!(target.attempt().is_err());
    target.time.advance(3 * S);
    target.fail();
    assert_eq!(rest(&target), Some(16.0), "the fifth in a row");

    target.breaker().force_closed();
    target.breaker().reopen(S, 1);
    assert_eq!(target.breaker().state(), State::ForcedClosed);
}
