//! A call reads the clock twice and has at most one timer, whatever the number of layers.
#![allow(clippy::unwrap_used)]

use tower::{Service, ServiceExt};
use tower_mesh::core::Clock;
use tower_mesh_bench::{Inner, Setup, stack};

/// How often one call through the whole stack reads the clock, and how many timers it registers.
async fn reads_and_timers(inner: Inner) -> (u64, u64) {
    let (clock, handle) = Clock::manual();
    let mut service = stack(Setup {
        endpoints: 100,
        inner,
        clock: Some(clock),
    })
    .await;
    // The first begins slices and windows; none of that reads the clock, but it is not what is counted here.
    service.ready().await.unwrap().call(0).await.unwrap();
    let (reads, timers) = (handle.reads(), handle.timers_registered());
    service.ready().await.unwrap().call(1).await.unwrap();
    (handle.reads() - reads, handle.timers_registered() - timers)
}

#[tokio::test]
async fn a_call_that_is_answered_at_once_reads_the_clock_twice_and_needs_no_timer() {
    assert_eq!(reads_and_timers(Inner::Ready).await, (2, 0));
}

#[tokio::test]
async fn a_call_that_waits_reads_the_clock_twice_and_has_one_timer() {
    assert_eq!(reads_and_timers(Inner::Pending).await, (2, 1));
}
