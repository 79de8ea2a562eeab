//! Who is left alone, why, and whether this process can do its work.

use std::time::Duration;

use tower_mesh::{
    Endpoint, Lifecycle, Mesh, MeshService, Policy,
    discovery::Static,
    health::{Criticality, Report},
};

use crate::{
    reload::{Backend, Client},
    support::{name, until},
};

const S: Duration = Duration::from_secs(1);

/// A service of so many endpoints, of which the first `dead` fail every call; the balancer treats all alike.
async fn fleet(endpoints: u16, dead: u16, policy: Policy) -> (Mesh, MeshService<Client>) {
    let all = (1..=endpoints).map(|port| Endpoint::new(([127, 0, 0, 1], port).into()));
    let mesh = Mesh::builder("shop")
        .discovery(Static::new().service(name("orders"), all))
        .defaults(policy)
        .start()
        .await
        .unwrap();
    let (good, bad) = (Backend::default(), Backend::default());
    bad.fail();
    let (good, bad) = (good.client(), bad.client());
    let orders = mesh
        .layer("orders")
        .unwrap()
        .over(move |endpoint: &Endpoint| {
            let is_dead = endpoint.address().port() <= dead;
            if is_dead {
                bad(endpoint)
            } else {
                good(endpoint)
            }
        });
    (mesh, orders)
}

/// A call every 10 ms, for so long; answers how many of the last second's had no success.
async fn calls(orders: &MeshService<Client>, time: Duration) -> usize {
    let mut lost = 0;
    for nth in 0..time.as_millis() / 10 {
        let answer = orders.get("/").await;
        let success = answer.is_ok_and(|response| response.status().is_success());
        let is_last = nth + 100 >= time.as_millis() / 10;
        lost += usize::from(is_last && !success);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    lost
}

/// The default policy, with one, two and three endpoints of which one is dead, and with three dead of ten.
#[tokio::test(start_paused = true)]
async fn the_dead_are_left_alone_by_the_default_policy_however_few_endpoints_there_are() {
    for (endpoints, dead) in [(2, 1), (3, 1), (10, 3)] {
        let (mesh, orders) = fleet(endpoints, dead, Policy::default()).await;
        assert_eq!(
            calls(&orders, 30 * S).await,
            0,
            "{dead} dead of {endpoints}"
        );
        let status = mesh.status();
        let attempts: u64 = (status.services[0].endpoints.iter())
            .map(|e| e.failures)
            .sum();
        assert!(
            attempts < 60 * u64::from(dead),
            "{attempts} attempts at the dead"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_endpoint_that_is_dead_is_probed_and_never_flooded() {
    let (mesh, orders) = fleet(1, 1, Policy::default()).await;
    calls(&orders, 30 * S).await;
    let endpoint = mesh.status().services[0].endpoints[0].clone();
    assert!(
        endpoint.attempts < 100,
        "{} of 3,000 calls",
        endpoint.attempts
    );
}

#[tokio::test(start_paused = true)]
async fn who_fails_more_than_its_peers_is_ejected_where_no_breaker_would_open() {
    let mut policy = Policy::default();
    policy.balance = tower_mesh::balance::Strategy::RoundRobin;
    policy.breaker.consecutive_failures = std::num::NonZeroU32::MAX;
    policy.breaker.failure_rate = tower_mesh::core::Ratio::percent(100);
    policy.breaker.open_for = Duration::from_millis(1);
    policy.breaker.max_open = Duration::from_millis(1);
    let (mesh, orders) = fleet(3, 1, policy).await;
    calls(&orders, 25 * S).await;
    let status = mesh.status();
    let ejected: Vec<_> = (status.services[0].endpoints.iter())
        .filter_map(|endpoint| Some((endpoint.ejected.as_ref()?, &endpoint.gate)))
        .collect();
    assert_eq!(ejected.len(), 1, "{status}");
    let (ejection, gate) = ejected[0];
    assert_eq!(gate, "shut by outlier ejection");
    assert_eq!((ejection.reason, ejection.times), ("failure_percentage", 1));
    assert!(ejection.rest <= 33 * S, "{ejection:?}");
    let explained = mesh.explain("orders").unwrap().to_string();
    assert!(explained.contains("ejected"), "{explained}");
}

#[tokio::test(start_paused = true)]
async fn explain_says_why_each_endpoint_is_or_is_not_picked_and_what_was_refused() {
    let (mesh, orders) = fleet(2, 2, Policy::default()).await;
    calls(&orders, 5 * S).await;
    for _ in 0..10 {
        let _ = orders.get("/").await;
    }
    let explained = mesh.explain("orders").unwrap();
    let text = explained.to_string();
    assert!(text.contains("breaker"), "{text}");
    assert!(text.contains("permits: 0 of"), "{text}");
    assert!(
        explained
            .refusals()
            .any(|error| error.kind == "no_endpoint"),
        "{text}"
    );
    assert!(text.contains("refused"), "{text}");
    assert!(mesh.explain("a/b").is_err());
}

#[tokio::test(start_paused = true)]
async fn a_process_is_ready_while_it_runs_and_its_critical_components_are_well() {
    let mesh = Mesh::builder("shop").start().await.unwrap();
    assert!(mesh.ready());
    let database = mesh
        .components()
        .push("database", Criticality::Critical)
        .unwrap();
    assert!(!mesh.ready(), "it has not said that it works");
    database.report(Report::healthy());
    assert!(mesh.ready());
    database.report(Report::unhealthy("connection refused"));
    let status = mesh.status();
    assert!(!status.ready);
    assert!(
        status.to_string().contains("database is unhealthy"),
        "{status}"
    );
    assert!(
        status.to_string().contains("connection refused"),
        "{status}"
    );
    drop(database);
    until("discovery has said how it is", || {
        mesh.status()
            .components
            .iter()
            .any(|c| c.name == "discovery" && c.status == "healthy")
    })
    .await;
    assert!(mesh.ready());
    mesh.shutdown(S).await.unwrap();
    assert_eq!(
        (mesh.ready(), mesh.lifecycle()),
        (false, Lifecycle::Stopped)
    );
}
