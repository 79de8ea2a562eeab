//! What a call costs that no clock has to measure.

use std::num::NonZeroU16;

use allocation_counter::measure;
use tower_mesh_breaker::{BreakerLayer, Policy, Window};
use tower_mesh_core::{Clock, Endpoint, NewLayer, Outcome, Ratio};

use crate::{Ask, MS, Target, ask, service};

/// All rules at once.
fn watchful(window: Window) -> Policy {
    Policy::default()
        .window(window)
        .slow_calls(100 * MS, Ratio::percent(50))
}

fn windows() -> [Window; 2] {
    let calls = NonZeroU16::new(100).expect("not zero");
    [Window::over(1_000 * MS), Window::last(calls)]
}

#[test]
fn a_healthy_call_through_a_service_allocates_nothing() {
    for window in windows() {
        let (clock, _) = Clock::manual();
        let layer = BreakerLayer::new(watchful(window)).clock(clock);
        let mut service = service(&layer);
        let _ = ask(&mut service, Ask::Succeed);
        let cost = measure(|| {
            for _ in 0..1_000 {
                let _ = ask(&mut service, Ask::Succeed);
            }
        });
        assert_eq!(cost.count_total, 0, "{window:?}");
    }
}

// flaw T8: memory there grows with the calls in the window
#[test]
fn no_call_at_an_endpoint_allocates_whatever_becomes_of_it_and_however_many_there_are() {
    for window in windows() {
        let target = Target::new(watchful(window));
        target.succeed();
        let cost = measure(|| {
            for call in 0..100_000 {
                match call % 4 {
                    0 => target.fail(),
                    1 => drop(target.attempt()),
                    _ => target.call(Outcome::success(), MS / 10_000),
                }
            }
        });
        assert_eq!(cost.count_total, 0, "{window:?}");
    }
}

#[test]
fn opening_and_closing_allocates_nothing_while_nobody_listens() {
    let target = Target::new(crate::after(1));
    let cost = measure(|| {
        for _ in 0..100 {
            target.fail();
            target.time.advance(100 * crate::S);
            target.succeed();
        }
    });
    assert_eq!(cost.count_total, 0);
}

#[test]
fn a_breaker_of_an_endpoint_takes_less_than_half_a_kibibyte() {
    let (clock, _) = Clock::manual();
    let layer = BreakerLayer::new(Policy::default()).clock(clock);
    let endpoint = Endpoint::new(([127, 0, 0, 1], 80).into());
    let cost = measure(|| {
        layer.layer_for(&endpoint);
    });
    assert!(cost.bytes_current <= 512, "{cost:?}");
}
