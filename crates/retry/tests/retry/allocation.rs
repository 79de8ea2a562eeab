//! What a call costs in memory.

use std::{
    future::{Future, Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
};

use tower::{BoxError, Layer, Service};
use tower_mesh_core::Clock;
use tower_mesh_retry::RetryLayer;

use crate::script::ms;

#[derive(Clone)]
struct Works;

impl Service<u64> for Works {
    type Response = u64;
    type Error = BoxError;
    type Future = Ready<Result<u64, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

#[test]
fn a_call_that_is_not_retried_allocates_nothing() {
    let (clock, _hand) = Clock::manual();
    let mut retry = RetryLayer::default()
        .per_try_timeout(ms(250))
        .clock(clock)
        .layer(Works);
    let mut call = || {
        let mut cx = Context::from_waker(Waker::noop());
        let call = pin!(retry.call(7));
        assert!(matches!(call.poll(&mut cx), Poll::Ready(Ok(7))));
    };
    call();
    let allocated = allocation_counter::measure(|| (0..100).for_each(|_| call()));
    assert_eq!(allocated.count_total, 0, "{allocated:?}");
}
