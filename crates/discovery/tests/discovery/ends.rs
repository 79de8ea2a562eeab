//! How it ends: the driver, a handle, a service that nobody uses.

use std::{convert::Infallible, future::Future};

use tower::{Layer, ServiceExt, service_fn};
use tower_mesh_core::{BoxError, Kind, Resolution};
use tower_mesh_discovery::{Discovery, DiscoveryLayer};

use crate::script::{
    Script, endpoint, kind, moment, name, orders, pass, ports, secs, start, status_of,
};

fn call(layer: &DiscoveryLayer) -> impl Future<Output = Result<(), BoxError>> + Send + 'static {
    let service = layer.layer(service_fn(|()| async { Ok::<_, Infallible>(()) }));
    service.oneshot(())
}

#[tokio::test(start_paused = true)]
async fn without_its_driver_what_is_known_stays_and_what_is_not_is_a_typed_error_at_once() {
    for polite in [true, false] {
        let script = Script::new();
        let (discovery, driver) = Discovery::builder(script.clone()).build();
        let driver = tokio::spawn(driver);
        let (known, unknown) = (discovery.layer(&orders()), discovery.layer(&name("users")));
        script.replace(&orders(), &[endpoint(1)]);
        assert!(call(&known).await.is_ok());
        let waits = tokio::spawn(call(&unknown));
        moment().await;
        if polite {
            discovery.shutdown();
            driver.await.unwrap();
        } else {
            driver.abort();
        }
        assert_eq!(kind(&waits.await.unwrap().unwrap_err()), Kind::ShuttingDown);
        assert_eq!(script.open(), 0, "no look-up is left");
        assert!(call(&known).await.is_ok());
        assert_eq!(ports(known.endpoints()), [1]);
        let late = discovery.layer(&name("late"));
        assert_eq!(kind(&call(&late).await.unwrap_err()), Kind::ShuttingDown);
        assert_eq!(
            unknown.endpoints().resolved().await,
            Resolution::Absent,
            "nobody hangs"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_nobody_polls_costs_a_caller_its_limit_and_no_memory() {
    let most = 10.try_into().unwrap();
    let (discovery, driver) = Discovery::builder(Script::new()).max_services(most).build();
    assert_eq!(
        kind(&call(&discovery.layer(&orders())).await.unwrap_err()),
        Kind::NoEndpoint
    );
    for i in 0..1_000 {
        discovery.endpoints(&name(&format!("s-{i}")));
    }
    assert!(discovery.status().len() <= 10);
    drop(driver);
}

#[tokio::test(start_paused = true)]
async fn the_driver_ends_with_the_last_handle_and_layers_are_handles() {
    let script = Script::new();
    let (discovery, driver) = Discovery::builder(script.clone()).build();
    let mut driver = tokio_test::task::spawn(driver);
    let (layer, endpoints) = (discovery.layer(&orders()), discovery.endpoints(&orders()));
    let changes = discovery.changes(&orders(), |_: &_| ());
    assert!(driver.poll().is_pending());
    // Once more, since it lets others run after it has polled every look-up.
    assert!(driver.poll().is_pending());
    drop(discovery);
    drop(layer);
    assert!(!driver.is_woken());
    drop(changes);
    assert!(driver.is_woken());
    assert!(driver.poll().is_ready());
    assert_eq!(
        (script.open(), endpoints.current().resolution()),
        (0, Resolution::Absent)
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_that_nobody_holds_is_dropped_after_its_time_and_found_again_when_asked_for() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()).idle_eviction(secs(60)));
    script.replace(&orders(), &[endpoint(1)]);
    script.replace(&name("users"), &[endpoint(2)]);
    let held = discovery.endpoints(&name("users"));
    discovery.endpoints(&orders()).resolved().await;
    // Asked for now and then, held by nobody: in use all the same.
    for _ in 0..10 {
        pass(secs(50)).await;
        assert_eq!(ports(&discovery.endpoints(&orders())), [1]);
    }
    pass(secs(80)).await;
    assert_eq!((discovery.status().len(), script.open()), (1, 1));
    assert_eq!(ports(&held), [2]);
    script.replace(&orders(), &[endpoint(3)]);
    let again = discovery.endpoints(&orders());
    again.resolved().await;
    assert_eq!((ports(&again), script.lookups(&orders())), (vec![3], 2));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_changes_all_the_time_is_dropped_when_nobody_holds_it_all_the_same() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()).idle_eviction(secs(60)));
    discovery.endpoints(&orders());
    for port in 1..=20 {
        script.replace(&orders(), &[endpoint(port)]);
        pass(secs(5)).await;
    }
    assert_eq!((script.open(), discovery.status().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_held_is_followed_however_long_nobody_asks() {
    let script = Script::new();
    let discovery = start(Discovery::builder(script.clone()).idle_eviction(secs(1)));
    let layer = discovery.layer(&orders());
    script.replace(&orders(), &[endpoint(1)]);
    pass(secs(3_600)).await;
    script.replace(&orders(), &[endpoint(2)]);
    moment().await;
    assert_eq!(ports(layer.endpoints()), [2]);
    assert_eq!(status_of(&discovery, &orders()).holders, 1);
    drop(layer);
    pass(secs(3)).await;
    assert_eq!((script.open(), discovery.status().len()), (0, 0));
}
