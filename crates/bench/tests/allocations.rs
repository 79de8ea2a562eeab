//! Nothing on the path of a call allocates. A binary of its own, since it counts what the whole process allocates.
#![allow(clippy::unwrap_used)]

use tower::{Service, ServiceExt};
use tower_mesh::core::Clock;
use tower_mesh_bench::{Inner, Setup, stack};

/// How often `calls` calls through the whole stack allocate, the first ones aside: they make thread-local state.
fn allocations(clock: Option<&Clock>, inner: Inner, calls: u64) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let mut service = runtime.block_on(stack(Setup {
        endpoints: 100,
        inner,
        clock: clock.cloned(),
    }));
    let mut call = |calls: u64| {
        runtime.block_on(async {
            for request in 0..calls {
                assert_eq!(
                    service.ready().await.unwrap().call(request).await.unwrap(),
                    request
                );
            }
        });
    };
    call(100);
    allocation_counter::measure(|| call(calls)).count_total
}

#[test]
fn a_call_through_the_whole_stack_allocates_nothing() {
    // One for the runtime's own entry; what counts is that more calls make no more of them.
    assert_eq!(
        allocations(None, Inner::Ready, 10_000),
        allocations(None, Inner::Ready, 1)
    );
}

#[test]
fn a_call_that_has_to_wait_allocates_nothing_either() {
    // Timers that calls share, and tokio's, whose places on the heap are used again.
    for clock in [None, Some(&Clock::tokio())] {
        assert_eq!(
            allocations(clock, Inner::Pending, 10_000),
            allocations(clock, Inner::Pending, 1),
            "{clock:?}"
        );
    }
}
