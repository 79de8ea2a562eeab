//! A call allocates nothing, however many endpoints there are.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are tests")]

use std::{
    convert::Infallible,
    future::{Future, Ready, poll_fn, ready},
    pin::pin,
    task::{Context, Poll, Waker},
};

use allocation_counter::measure;
use tower::{Layer, Service, balance::p2c, discover::ServiceList, load::Constant};
use tower_mesh_balance::{Balance, BalanceLayer, Strategy};
use tower_mesh_core::{Clock, Endpoint, Endpoints, ServiceName, Shared, Weight, frame};

#[derive(Clone)]
struct Echo;

impl Service<u64> for Echo {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

fn endpoints(number: u32, weight: impl Fn(u32) -> u16) -> Endpoints {
    let endpoint = |number: u32| {
        let [_, b, c, d] = number.to_be_bytes();
        Endpoint::new(([10, b, c, d], 80).into()).with_weight(Weight::new(weight(number)))
    };
    let name = ServiceName::new("orders").unwrap();
    Endpoints::fixed(name, (0..number).map(endpoint))
}

fn call<S>(service: &mut S)
where
    S: Service<u64, Response = u64, Error: std::fmt::Debug>,
{
    let answer = pin!(service.call(1)).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(answer, Poll::Ready(Ok(1))));
}

fn allocations(mut this: impl FnMut()) -> u64 {
    // The first few fill what is kept per thread and per endpoint.
    (0..10).for_each(|_| this());
    measure(|| (0..100).for_each(|_| this())).count_total
}

#[test]
fn a_call_allocates_nothing_by_any_strategy_with_any_weights() {
    for strategy in [
        Strategy::BestOfThree,
        Strategy::PeakEwma,
        Strategy::LeastInFlight,
        Strategy::RoundRobin,
        Strategy::Weighted,
    ] {
        for number in [1, 2, 3, 10, 10_000] {
            let even = endpoints(number, |_| 1);
            let uneven = endpoints(number, |number| number as u16 % 4);
            for endpoints in [even, uneven] {
                let layer = BalanceLayer::new(endpoints).strategy(strategy);
                let mut balance = layer.layer(Shared::new(Echo));
                assert_eq!(
                    allocations(|| call(&mut balance)),
                    0,
                    "{strategy:?} of {number}"
                );
            }
        }
    }
}

#[test]
fn nor_does_one_that_waits_or_a_clone_or_one_that_is_given_up() {
    let balance = BalanceLayer::new(endpoints(10, |_| 1)).layer(Shared::new(Pending));
    let once = || {
        let mut balance: Balance<Pending> = balance.clone();
        let mut call = pin!(balance.call(1));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(call.as_mut().poll(&mut cx).is_pending());
        assert!(call.as_mut().poll(&mut cx).is_pending());
    };
    assert_eq!(allocations(once), 0);
}

#[derive(Clone)]
struct Pending;

impl Service<u64> for Pending {
    type Response = u64;
    type Error = Infallible;
    type Future = std::future::Pending<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u64) -> Self::Future {
        std::future::pending()
    }
}

#[test]
fn nor_does_a_retry_beneath_other_layers() {
    let clock = Clock::default();
    let layer = BalanceLayer::new(endpoints(10, |_| 1)).clock(clock.clone());
    let mut balance = layer.layer(Shared::new(Echo));
    let once = || {
        let polled =
            pin!(frame::Call::new()).poll(&clock, &mut Context::from_waker(Waker::noop()), |cx| {
                for _ in 0..3 {
                    assert!(pin!(balance.call(1)).poll(cx).is_ready());
                }
                Poll::Ready(())
            });
        assert!(polled.is_ready());
    };
    assert_eq!(allocations(once), 0);
}

// flaw W12
#[test]
fn where_towers_allocates_for_each_call() {
    let services = vec![Constant::new(Echo, 0), Constant::new(Echo, 0)];
    let mut tower = p2c::Balance::new(ServiceList::new::<u64>(services));
    let once = || {
        let mut cx = Context::from_waker(Waker::noop());
        let ready = pin!(poll_fn(|cx| tower.poll_ready(cx))).poll(&mut cx);
        assert!(ready.is_ready());
        call(&mut tower);
    };
    assert!(allocations(once) >= 100);
}
