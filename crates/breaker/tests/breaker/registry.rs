//! Breakers by key.

use std::{num::NonZeroUsize, sync::Arc};

use tower_mesh_breaker::{CircuitBreakerRegistry, State};
use tower_mesh_core::{Clock, ManualClock};

use crate::{Ask, S, after, ask, service};

fn registry(capacity: usize) -> (CircuitBreakerRegistry, ManualClock) {
    let (clock, time) = Clock::manual();
    let registry = CircuitBreakerRegistry::new(after(1))
        .clock(clock)
        .capacity(NonZeroUsize::new(capacity).expect("not zero"));
    (registry, time)
}

fn keys(registry: &CircuitBreakerRegistry) -> Vec<String> {
    let snapshots = registry.snapshot();
    snapshots.iter().map(|s| s.name.to_string()).collect()
}

#[test]
fn one_key_is_one_breaker_and_each_has_its_own() {
    let (registry, _) = registry(10);
    let orders = registry.get_or_create("orders").expect("there is room");
    let again = registry
        .clone()
        .get_or_create("orders")
        .expect("it is there");
    registry.get_or_create("invoices").expect("there is room");
    let _ = ask(&mut service(&again.layer()), Ask::Fail);
    assert_eq!(orders.state(), State::Open);
    let states: Vec<_> = registry.snapshot().iter().map(|s| s.state).collect();
    assert_eq!(states, [State::Closed, State::Open]);
    registry.reset_all();
    assert_eq!(orders.state(), State::Closed);
    assert!(registry.get("returns").is_none());
}

// flaw B2: keyed engines are never evicted there
#[test]
fn a_flood_of_keys_costs_no_more_than_the_capacity_and_no_breaker_that_is_needed() {
    let (registry, time) = registry(1_000);
    let held = registry.get_or_create("held").expect("there is room");
    let opened = registry.get_or_create("opened").expect("there is room");
    let _ = ask(&mut service(&opened.layer()), Ask::Fail);
    drop(opened);
    for key in 0..100_000 {
        time.advance(S / 1_000);
        registry
            .get_or_create(&key.to_string())
            .expect("room is made");
        assert!(registry.len() <= 1_000);
    }
    let opened = registry.get("opened").expect("what it knows is needed");
    assert_eq!(opened.snapshot().opened, 1);
    let there = registry.get("held").expect("somebody holds it");
    there.force_open();
    assert_eq!(held.state(), State::ForcedOpen);
}

#[test]
fn the_longest_idle_makes_room() {
    let (registry, time) = registry(4);
    let make = |key| {
        time.advance(S);
        registry.get_or_create(key).expect("room is made")
    };
    let mut called = service(&make("called").layer());
    for key in ["first", "second", "asked for"] {
        make(key);
    }
    time.advance(S);
    let _ = ask(&mut called, Ask::Succeed);
    drop(called);
    time.advance(S);
    registry.get("asked for").expect("it is there");
    make("third");
    make("fourth");
    assert_eq!(keys(&registry), ["asked for", "called", "fourth", "third"]);
    make("fifth");
    assert_eq!(keys(&registry), ["asked for", "fifth", "fourth", "third"]);
}

#[test]
fn a_call_under_way_or_a_service_holds_its_breaker() {
    let (registry, time) = registry(2);
    let calling = registry.get_or_create("calling").expect("there is room");
    let mut called = service(&calling.layer());
    drop(calling);
    let serving = service(
        &registry
            .get_or_create("serving")
            .expect("there is room")
            .layer(),
    );
    let call = {
        let mut call = Box::pin(tower::Service::call(&mut called, Ask::Hang));
        let polled = futures_util::FutureExt::now_or_never(call.as_mut());
        assert!(polled.is_none());
        call
    };
    drop(called);
    time.advance(S);
    let full = registry.get_or_create("third").expect_err("both are held");
    assert_eq!(full.capacity().get(), 2);
    drop(call);
    registry
        .get_or_create("third")
        .expect("nobody calls any more");
    assert_eq!(keys(&registry), ["serving", "third"]);
    drop(serving);
}

#[test]
fn threads_that_ask_for_one_key_get_one_breaker() {
    let (registry, _) = registry(100);
    let breakers: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| registry.get_or_create("orders").expect("there is room")))
            .collect();
        asking
            .into_iter()
            .map(|t| t.join().expect("no panic"))
            .collect()
    });
    breakers[0].force_open();
    assert!(breakers.iter().all(|b| b.state() == State::ForcedOpen));
    assert_eq!(registry.len(), 1);
    assert!(Arc::ptr_eq(breakers[0].name(), breakers[3].name()));
}
