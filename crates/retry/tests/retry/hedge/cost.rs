//! What a call costs that is not hedged.

use std::{
    future::{Future, Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
};

use tower::{BoxError, Service};
use tower_mesh_core::Clock;
use tower_mesh_retry::{Budget, HedgeAfter, HedgeLayer};

use super::Stage;
use crate::script::{Step, ms};

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
fn a_call_that_is_not_hedged_allocates_nothing_and_reads_the_clock_twice() {
    for after in [HedgeAfter::default(), HedgeAfter::Fixed(ms(50))] {
        let (clock, hand) = Clock::manual();
        let layer = HedgeLayer::new(Budget::default()).after(after).clock(clock);
        let mut hedge = layer.over(Works);
        let mut call = || {
            let mut cx = Context::from_waker(Waker::noop());
            let call = pin!(hedge.call(7));
            assert!(matches!(call.poll(&mut cx), Poll::Ready(Ok(7))));
        };
        (0..200).for_each(|_| call());
        hand.advance(ms(1_000));
        call();
        assert!(layer.snapshot().delay.is_some(), "it could be hedged");
        let reads = hand.reads();
        let allocated = allocation_counter::measure(|| (0..100).for_each(|_| call()));
        assert_eq!(allocated.count_total, 0, "{allocated:?}");
        assert!(hand.reads() - reads <= 200);
        assert_eq!(hand.timers_registered(), 0);
    }
}

#[test]
fn a_call_that_waits_arms_one_timer_and_wakes_nobody_for_nothing() {
    let stage = Stage::new();
    let script = stage.script([Step::Hang]);
    let mut hedge = stage.hedged(&stage.layer(ms(500), 2), &script);
    let mut call = tokio_test::task::spawn(hedge.call("a"));
    for _ in 0..3 {
        assert!(call.poll().is_pending());
        assert!(!call.is_woken());
    }
    assert_eq!(
        (stage.hand.timers(), stage.hand.timers_registered()),
        (1, 1)
    );
}
