//! I4: what is shown together was true together.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tower_mesh::{
    Endpoint, MemoryRegistry, Mesh,
    core::{Endpoints, Resolution},
};

use crate::support::{endpoint, orders};

/// An odd revision has one endpoint, an even one has two.
fn endpoints_of(revision: u64) -> Vec<Endpoint> {
    (1..=2 - (revision % 2) as u16).map(endpoint).collect()
}

#[test]
fn a_set_of_endpoints_is_of_one_revision() {
    let endpoints = Endpoints::pending(orders());
    let publisher = endpoints.clone();
    let ended = Arc::new(AtomicBool::new(false));
    let reader = {
        let ended = Arc::clone(&ended);
        thread::spawn(move || {
            let mut last = 0;
            while !ended.load(Ordering::Relaxed) {
                let set = endpoints.current();
                let revision = set.revision();
                assert!(revision >= last, "{revision} after {last}");
                last = revision;
                if revision > 0 {
                    assert_eq!(set.endpoints(), endpoints_of(revision));
                    assert_eq!(set.resolution(), Resolution::Found);
                }
            }
        })
    };
    for revision in 1..=20_000 {
        publisher.publish(Resolution::Found, endpoints_of(revision));
    }
    ended.store(true, Ordering::Relaxed);
    reader.join().unwrap();
}

#[tokio::test]
async fn the_status_of_a_service_is_of_one_revision() {
    const ENOUGH: u64 = 500;
    let registry = MemoryRegistry::new();
    registry.set(&orders(), endpoints_of(1));
    let mesh = Mesh::builder("tests").discovery(registry.clone()).start();
    let mesh = mesh.await.unwrap();
    let client = mesh.service("orders").unwrap();
    client.endpoints().resolved().await;
    let reader = thread::spawn(move || {
        let (mut seen, mut last) = (0, 0);
        while seen < ENOUGH {
            let status = mesh.status();
            let orders = &status.services[0];
            let revision = orders.discovery.revision;
            let ids: Vec<_> = orders.endpoints.iter().map(|e| e.id.as_str()).collect();
            let of_one = endpoints_of(revision);
            let of_one: Vec<_> = of_one.iter().map(Endpoint::id).collect();
            assert_eq!(ids, of_one, "of revision {revision}");
            seen += u64::from(revision != last);
            last = revision;
        }
    });
    let mut revision = 1;
    while !reader.is_finished() {
        revision += 1;
        registry.set(&orders(), endpoints_of(revision));
        let published = client.endpoints().changed(revision - 1).await.revision();
        assert_eq!(published, revision);
    }
    reader.join().unwrap();
}
