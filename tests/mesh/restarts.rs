//! A process that restarts goes on with what the one before has learned.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower_mesh::{Endpoint, Mesh, Policy, Snapshot, discovery::Static};

use crate::{
    reload::Backend,
    support::{name, until},
};

fn endpoints() -> [Endpoint; 2] {
    [80, 81].map(|port| Endpoint::new(([127, 0, 0, 1], port).into()))
}

async fn started(snapshot: Option<Snapshot>) -> Mesh {
    let mut policy = Policy::default();
    policy.breaker.open_for = Duration::from_secs(60);
    policy.panic.min_healthy = 0;
    let mesh = Mesh::builder("shop")
        .discovery(Static::new().service(name("orders"), endpoints()))
        .defaults(policy);
    let mesh = match snapshot {
        Some(snapshot) => mesh.restore(snapshot),
        None => mesh,
    };
    mesh.start().await.unwrap()
}

/// A mesh that has learned of both endpoints: the second fails, and its breaker is open.
async fn learned() -> Value {
    let mesh = started(None).await;
    let good = Backend::default();
    let bad = Backend::default();
    bad.fail();
    let (good, bad) = (good.client(), bad.client());
    let orders = mesh
        .layer("orders")
        .unwrap()
        .over(move |endpoint: &Endpoint| match endpoint.address().port() {
            80 => good(endpoint),
            _ => bad(endpoint),
        });
    let call = async || {
        let response = orders.get("/").await.unwrap();
        response.into_body().collect().await.unwrap();
    };
    call().await;
    while mesh.status().services[0].endpoints[1].gate == "open" {
        call().await;
        // The balancer tries who failed again after a while only.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    serde_json::to_value(mesh.snapshot()).unwrap()
}

/// What the next process begins with, the snapshot being so much older: gates and latencies.
async fn begins_with(mut snapshot: Value, older: Duration) -> Vec<(String, bool)> {
    let taken = snapshot["taken"].as_u64().unwrap();
    snapshot["taken"] = json!(taken - older.as_millis() as u64);
    let mesh = started(Some(serde_json::from_value(snapshot).unwrap())).await;
    let _orders = Backend::default().serve(&mesh);
    let endpoints = || mesh.status().services[0].endpoints.clone();
    until("they are found", || endpoints().len() == 2).await;
    let mut all = endpoints();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all.into_iter()
        .map(|endpoint| (endpoint.gate, endpoint.latency_ms.is_some()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn open_breakers_stay_open_for_the_rest_of_their_time_and_speeds_are_believed_for_a_while() {
    let snapshot = learned().await;
    let gates = async |older| begins_with(snapshot.clone(), Duration::from_secs(older)).await;
    let (open, shut) = ("open".to_owned(), "shut by breaker".to_owned());
    assert_eq!(
        gates(0).await,
        [(open.clone(), true), (shut, true)],
        "who never answered is given the speed of the others"
    );
    assert_eq!(
        gates(120).await,
        [(open.clone(), true), (open.clone(), true)]
    );
    assert_eq!(gates(180).await, [(open.clone(), false), (open, false)]);
}

#[tokio::test]
async fn a_snapshot_that_nobody_wrote_is_refused() {
    for (text, says) in [
        (
            json!({"version": 2, "taken": 0, "services": {}}),
            "of version 2",
        ),
        (
            json!({"version": 1, "taken": 0, "services": {"a/b": {"endpoints": []}}}),
            "is not allowed",
        ),
        (
            json!({"version": 1, "taken": 0, "services": {"a": {"endpoints": [
                {"id": "x", "address": "127.0.0.1:80", "latency_us": -1.0}
            ]}}}),
            "the latency of x",
        ),
    ] {
        let snapshot: Snapshot = serde_json::from_value(text).unwrap();
        let error = Mesh::builder("shop").restore(snapshot).start().await;
        let error = std::error::Error::source(&error.unwrap_err())
            .unwrap()
            .to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_out_for_ever_because_a_snapshot_says_so() {
    let mut snapshot = learned().await;
    for endpoint in snapshot["services"]["orders"]["endpoints"]
        .as_array_mut()
        .unwrap()
    {
        if !endpoint["breaker"].is_null() {
            endpoint["breaker"]["rest_ms"] = json!(u64::MAX);
        }
    }
    let gates = begins_with(snapshot, Duration::from_secs(601)).await;
    assert!(gates.iter().all(|(gate, _)| gate == "open"), "{gates:?}");
}
