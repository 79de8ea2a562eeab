//! Bad input and hostile conditions (the rows of the reference's table that concern these parts).

use std::time::Duration;

use axum::{body::Body as AxumBody, response::Response};
use http_body_util::BodyExt;
use tower_mesh::{Endpoint, MemoryRegistry, Mesh, Policy, core::Weight};

use crate::{
    calls::mesh,
    support::{Server, until},
};

#[tokio::test]
async fn a_weight_of_zero_takes_no_calls_and_all_zero_means_equal() {
    let (zero, one) = (
        Server::answering(200, "").await,
        Server::answering(200, "").await,
    );
    let endpoints = vec![zero.endpoint().with_weight(Weight::new(0)), one.endpoint()];
    let orders = mesh(endpoints, Policy::default())
        .await
        .service("orders")
        .unwrap();
    for _ in 0..50 {
        orders.get("/").await.unwrap();
    }
    assert_eq!((zero.hits(), one.hits()), (0, 50));

    let endpoints = [&zero, &one].map(|server| server.endpoint().with_weight(Weight::new(0)));
    let orders = mesh(endpoints.into(), Policy::default())
        .await
        .service("orders")
        .unwrap();
    for _ in 0..50 {
        orders.get("/").await.unwrap();
    }
    assert!(zero.hits() > 0 && one.hits() > 50);
}

#[tokio::test]
async fn a_hundred_thousand_endpoints_in_one_update_are_taken_and_called() {
    let alive = Server::answering(200, "").await;
    // The rest has weight zero: known, in the way, and never called.
    let mut endpoints: Vec<Endpoint> = (0..99_999u32)
        .map(|i| {
            Endpoint::new((std::net::Ipv4Addr::from(0x0a00_0000 + i), 80).into())
                .with_weight(Weight::new(0))
        })
        .collect();
    endpoints.push(alive.endpoint());
    let mesh = mesh(endpoints, Policy::default()).await;
    let orders = mesh.service("orders").unwrap();
    for _ in 0..10 {
        orders.get("/").await.unwrap();
    }
    assert_eq!(alive.hits(), 10);
    assert_eq!(orders.endpoints().current().endpoints().len(), 100_000);
}

#[tokio::test]
async fn names_out_of_requests_do_not_fill_the_memory() {
    let mesh = Mesh::builder("shop")
        .discovery(MemoryRegistry::new())
        .start()
        .await
        .unwrap();
    for i in 0..30_000 {
        drop(mesh.service(&format!("s{i}")).unwrap());
    }
    assert!(mesh.status().services.len() <= 10_000);
}

#[tokio::test]
async fn more_services_in_use_than_the_mesh_keeps_are_refused_not_forgotten() {
    let mesh = Mesh::builder("shop")
        .discovery(MemoryRegistry::new())
        .start()
        .await
        .unwrap();
    let held: Vec<_> = (0..10_000)
        .map(|i| mesh.layer(&format!("s{i}")).unwrap())
        .collect();
    let error = mesh.service("one-more").unwrap_err();
    assert!(error.is_overloaded(), "{error}");
    drop(held);
    mesh.service("one-more").unwrap();
    until(
        "only discovery and what the one service needs are left",
        || mesh.tasks() < 10,
    )
    .await;
}

#[tokio::test]
async fn a_body_that_never_ends_holds_its_permit_until_it_is_dropped_and_is_no_verdict() {
    let server = Server::start(|_| async {
        let first = futures_util::stream::once(async { Ok::<_, std::convert::Infallible>("a") });
        let endless = futures_util::StreamExt::chain(first, futures_util::stream::pending());
        Response::new(AxumBody::from_stream(endless))
    })
    .await;
    let mesh = mesh(vec![server.endpoint()], Policy::default()).await;
    let mut response = mesh.service("orders").unwrap().get("/").await.unwrap();
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "a");
    let status = mesh.status();
    assert_eq!(
        (
            status.services[0].limit.in_use,
            status.services[0].endpoints[0].in_flight
        ),
        (1, 1)
    );
    drop(response);
    until("permit and load are back", || {
        let status = mesh.status();
        (
            status.services[0].limit.in_use,
            status.services[0].endpoints[0].in_flight,
        ) == (0, 0)
    })
    .await;
    assert_eq!(mesh.status().services[0].endpoints[0].failures, 0);
}

#[tokio::test]
async fn every_answer_overloaded_with_retry_after_zero_is_no_storm() {
    let server = Server::start(|_| async {
        Response::builder()
            .status(503)
            .header("retry-after", "0")
            .body(AxumBody::empty())
            .unwrap()
    })
    .await;
    let mut policy = Policy::default();
    policy.breaker.consecutive_failures = std::num::NonZeroU32::MAX;
    policy.breaker.failure_rate = tower_mesh::core::Ratio::ONE;
    policy.breaker.open_for = Duration::from_millis(1);
    let mesh = mesh(vec![server.endpoint()], policy).await;
    let orders = mesh.service("orders").unwrap();
    let mut sent = 0;
    for _ in 0..200 {
        sent += u64::from(
            orders
                .get("/")
                .await
                .is_ok_and(|response| response.status() == 503),
        );
    }
    let retries = mesh.status().services[0].retries.made;
    assert!(
        sent > 0 && retries <= 20 + 10,
        "{retries} retries for {sent} calls"
    );
}

#[tokio::test]
async fn a_retry_after_beyond_the_deadline_is_not_waited_for() {
    let server = Server::start(|_| async {
        Response::builder()
            .status(429)
            .header("retry-after", "600")
            .body(AxumBody::empty())
            .unwrap()
    })
    .await;
    let mesh = mesh(vec![server.endpoint()], Policy::default()).await;
    let response = mesh.service("orders").unwrap().get("/").await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(server.hits(), 1);
}

#[test]
fn a_runtime_that_is_dropped_ends_the_calls_of_its_mesh_and_hangs_nobody() {
    // row 40: the mesh's tasks, its connections among them, go down with the runtime it was started on.
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let (ours, theirs) = (runtime(), runtime());
    let server = ours.block_on(Server::hanging());
    let mesh = theirs.block_on(mesh(vec![server.endpoint()], Policy::default()));
    let orders = mesh.service("orders").unwrap();
    let call = ours.spawn(async move { orders.get("/").await });
    ours.block_on(until("the call has reached the server", || {
        server.hits() == 1
    }));
    drop(theirs);
    let error = ours.block_on(call).unwrap().unwrap_err();
    assert!(
        !error.is_deadline_exceeded(),
        "it waited for its deadline: {error}"
    );
    let status = mesh.status();
    assert_eq!(
        (
            status.services[0].in_flight,
            status.services[0].limit.in_use
        ),
        (0, 0)
    );
}
