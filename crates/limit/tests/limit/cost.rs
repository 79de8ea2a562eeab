//! What a call costs that no clock has to measure.

use allocation_counter::measure;
use tokio_test::task::spawn;
use tower_layer::Layer;
use tower_mesh_core::Clock;
use tower_mesh_limit::DeadlineLayer;
use tower_service::Service;

use crate::{Ask, Inner, SECOND, bulkhead};

/// Calls once, and polls until there is an answer.
fn call(service: &mut impl Service<Ask, Response = &'static str>, ask: Ask) {
    let mut response = std::pin::pin!(service.call(ask));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    while response.as_mut().poll(&mut cx).is_pending() {}
}

#[test]
fn a_call_allocates_nothing_when_it_is_answered_at_once() {
    let (clock, _) = Clock::manual();
    let limited = bulkhead(1)
        .queue(1)
        .clock(clock.clone())
        .layer(Inner::default());
    let mut service = DeadlineLayer::new(SECOND).clock(clock).layer(limited);
    let cost = measure(|| (0..100).for_each(|_| call(&mut service, Ask::Answer)));
    assert_eq!(cost.count_total, 0);
}

#[tokio::test]
async fn a_call_allocates_nothing_when_it_is_pending_once_its_timer_included() {
    let limited = bulkhead(1).queue(1).layer(Inner::default());
    let mut service = DeadlineLayer::new(SECOND).layer(limited);
    call(&mut service, Ask::Later(1));
    let cost = measure(|| (0..100).for_each(|_| call(&mut service, Ask::Later(1))));
    assert_eq!(cost.count_total, 0);
}

#[test]
fn what_waiting_allocates_does_not_grow_with_the_calls() {
    let (clock, _) = Clock::manual();
    let mut service = bulkhead(1).queue(1).clock(clock).layer(Inner::default());
    let mut running = spawn(service.call(Ask::Never));
    assert!(running.poll().is_pending());
    let mut wait_and_go = || {
        let mut waiting = std::pin::pin!(service.call(Ask::Answer));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
    };
    wait_and_go();
    let cost = measure(|| (0..1_000).for_each(|_| wait_and_go()));
    assert_eq!(cost.count_current, 0);
}
