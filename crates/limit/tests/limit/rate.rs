//! The rate limit.

use std::time::Duration;

use std::num::NonZeroU32;

use tower_layer::Layer;
use tower_mesh_core::{
    Clock, ManualClock, Refusal,
    testing::contract::{Contract, Inner as ContractInner, Subject},
};
use tower_mesh_limit::{RateLayer, RateLimited};

use super::{Ask, Inner, MS, Now, OVERLOADED, SECOND, call, poll};

fn count(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).expect("not zero")
}

fn ten_a_second() -> (RateLayer, ManualClock) {
    let (clock, time) = Clock::manual();
    (RateLayer::per_second(count(10)).clock(clock), time)
}

#[test]
fn a_burst_of_a_second_goes_through_and_then_one_in_a_tenth() {
    let (layer, time) = ten_a_second();
    let mut service = layer.layer(Inner::default());
    let mut now = || poll(&mut call(&mut service, Ask::Answer));
    (0..10).for_each(|_| assert_eq!(now(), Now::Answered));
    assert_eq!(now(), OVERLOADED);
    for _ in 0..30 {
        time.advance(99 * MS);
        assert_eq!(now(), OVERLOADED);
        time.advance(MS);
        assert_eq!(now(), Now::Answered);
    }
    time.advance(60 * SECOND);
    (0..10).for_each(|_| assert_eq!(now(), Now::Answered));
    assert_eq!(now(), OVERLOADED);
}

#[test]
fn services_of_one_layer_share_the_rate_and_who_is_refused_learns_when_to_come() {
    let (layer, time) = ten_a_second();
    let layer = layer.burst(count(2));
    let mut one = layer.layer(Inner::default());
    let mut other = layer.clone().layer(Inner::default());
    assert_eq!(poll(&mut call(&mut one, Ask::Answer)), Now::Answered);
    assert_eq!(poll(&mut call(&mut other, Ask::Answer)), Now::Answered);
    time.advance(30 * MS);
    let std::task::Poll::Ready(Err(error)) = call(&mut one, Ask::Answer).poll() else {
        panic!("it is refused");
    };
    let expected = Duration::from_millis(70);
    assert_eq!(
        Refusal::of(&*error).and_then(Refusal::retry_after),
        Some(expected)
    );
    let limited: &RateLimited = error.downcast_ref().expect("it says so");
    assert_eq!(limited.retry_after(), expected);
}

#[test]
fn a_call_that_is_never_polled_counts_for_nothing_and_what_is_refused_is_not_made() {
    let (layer, _) = ten_a_second();
    let layer = layer.burst(count(1));
    let inner = Inner::default();
    let mut service = layer.layer(inner.clone());
    drop(call(&mut service, Ask::Answer));
    assert_eq!(poll(&mut call(&mut service, Ask::Answer)), Now::Answered);
    assert_eq!(poll(&mut call(&mut service, Ask::Answer)), OVERLOADED);
    assert_eq!(inner.called(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_keeps_the_contract_of_a_service() {
    let service = |inner: ContractInner<&'static str>| {
        Subject::new(RateLayer::per_second(count(1_000_000)).layer(inner))
    };
    let contract = Contract::new(|| "request", || "response");
    contract
        .check(service)
        .await
        .expect("it keeps the contract");
}
