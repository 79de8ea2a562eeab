//! With the registry that a program brings along: what is registered is found.

use std::time::Duration;

use tower_mesh_core::{Clock, Health, Instance, Register, Resolution};
use tower_mesh_discovery::{Discovery, MemoryRegistry};

use crate::script::{endpoint, moment, orders, pass, ports, secs, start, status_of};

#[tokio::test(start_paused = true)]
async fn an_instance_is_found_while_it_is_registered_and_alive() {
    let registry = MemoryRegistry::with_clock(Clock::tokio());
    let discovery = start(Discovery::builder(registry.clone()));
    let endpoints = discovery.endpoints(&orders());
    assert_eq!(endpoints.resolved().await, Resolution::Absent);

    let ttl = secs(10);
    let first = registry.register(Instance::new(orders(), endpoint(1)));
    let first = first.await.unwrap();
    let second = registry.register(Instance::new(orders(), endpoint(2)).with_ttl(ttl));
    let second = second.await.unwrap();
    moment().await;
    assert_eq!(ports(&endpoints), [1, 2]);

    // Its heartbeat stays away: it is known, but kept from callers.
    pass(ttl + Duration::from_secs(1)).await;
    assert_eq!(ports(&endpoints), [1]);
    assert_eq!(status_of(&discovery, &orders()).filtered, 1);
    second.heartbeat(Health::Passing).await.unwrap();
    moment().await;
    assert_eq!(ports(&endpoints), [1, 2]);

    second.deregister().await.unwrap();
    drop(first);
    moment().await;
    let set = endpoints.current();
    assert_eq!(
        (set.resolution(), set.endpoints().len()),
        (Resolution::Found, 0)
    );
}

/// The registry hands out the very endpoint that was registered, with whatever state hangs on it.
#[tokio::test(start_paused = true)]
async fn two_that_look_at_one_registry_do_not_drain_each_others_endpoints() {
    let registry = MemoryRegistry::new();
    registry.set(&orders(), [endpoint(1)]);
    let [one, other] = [(); 2].map(|()| start(Discovery::builder(registry.clone())));
    let (mine, theirs) = (one.endpoints(&orders()), other.endpoints(&orders()));
    mine.resolved().await;
    theirs.resolved().await;
    let open = |endpoints: &tower_mesh_core::Endpoints| {
        let set = endpoints.current();
        set.endpoints()[0].vitals().gate().is_open()
    };
    mine.current().endpoints()[0]
        .vitals()
        .gate()
        .set_draining(true);
    assert!(!open(&mine) && open(&theirs));
}
