//! Nothing on the path of a call allocates. A binary of its own, since it counts what the whole process allocates.
#![allow(clippy::unwrap_used)]

use tower::{BoxError, Service, ServiceExt};
use tower_mesh::core::Clock;
use tower_mesh_bench::{Client, Inner, Posts, Setup, mesh_by_authority, mesh_of_client, stack};

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

/// How often a POST with headers and a body of 1 KiB allocates, its answer read to the end.
fn of_a_post<C, F>(client: impl FnOnce(Setup) -> F) -> u64
where
    C: Client,
    F: Future<Output = Result<C, BoxError>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let setup = Setup {
        endpoints: 100,
        inner: Inner::Ready,
        clock: None,
    };
    let mut client = runtime.block_on(client(setup)).unwrap();
    let mut counts: Vec<u64> = (0..1_001)
        .map(|call| {
            let call = || runtime.block_on(client.call(call)).unwrap();
            allocation_counter::measure(call).count_total
        })
        .collect();
    counts.sort_unstable();
    counts[counts.len() / 2]
}

#[test]
fn what_the_mesh_adds_to_a_post_is_known_and_finding_its_service_by_authority_adds_nothing() {
    let bare = of_a_post(async |setup| Ok(Posts::new(setup.inner)));
    let mesh = of_a_post(async |setup| Ok(Posts::new(mesh_of_client(setup).await?)));
    let by_authority = of_a_post(async |setup| Ok(Posts::new(mesh_by_authority(setup).await?)));
    println!("bare {bare}, mesh {mesh}, by authority {by_authority}");
    assert_eq!(by_authority, mesh);
    // The list of headers that another attempt would need, and the value of the header that says how long this one has.
    assert_eq!(mesh - bare, 2);
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
