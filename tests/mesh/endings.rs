//! The ends of a call, and the one verdict (scenarios 25 and 27 over real sockets).

use std::time::Duration;

use axum::{body::Body as AxumBody, response::Response};
use http_body_util::BodyExt;
use tower_mesh::{MemoryRegistry, Mesh, Policy, status::EndpointStatus};

use crate::{
    calls::mesh,
    support::{Server, answer, name, until},
};

fn only_endpoint(mesh: &Mesh) -> EndpointStatus {
    mesh.status().services[0].endpoints[0].clone()
}

#[tokio::test]
async fn a_caller_that_goes_away_releases_everything_and_says_nothing() {
    let server = Server::hanging().await;
    let mesh = mesh(vec![server.endpoint()], Policy::default()).await;
    let orders = mesh.service("orders").unwrap();
    for i in 1..=20 {
        let call = tokio::spawn({
            let orders = orders.clone();
            async move { orders.get("/").await }
        });
        until("the call has reached the server", || server.hits() == i).await;
        call.abort();
        let _ = call.await;
    }
    let status = mesh.status();
    let endpoint = only_endpoint(&mesh);
    assert_eq!(
        (endpoint.in_flight, endpoint.failures, endpoint.attempts),
        (0, 0, 20)
    );
    assert_eq!(
        (
            status.services[0].abandoned,
            status.services[0].limit.in_use
        ),
        (20, 0)
    );
    assert_eq!(endpoint.gate, "open");
}

#[tokio::test]
async fn a_body_that_breaks_is_a_failure_though_its_head_was_fine() {
    // It breaks once the head has arrived; before, the head would never be sent.
    let (cut, is_cut) = tokio::sync::watch::channel(false);
    let server = Server::start(move |_| {
        let mut is_cut = is_cut.clone();
        async move {
            let half = futures_util::stream::once(async { Ok("half") });
            let rest = futures_util::stream::once(async move {
                is_cut.wait_for(|cut| *cut).await.unwrap();
                Err(std::io::Error::other("cut"))
            });
            Response::new(AxumBody::from_stream(futures_util::StreamExt::chain(
                half, rest,
            )))
        }
    })
    .await;
    let mesh = mesh(vec![server.endpoint()], Policy::default()).await;
    let response = mesh.service("orders").unwrap().get("/").await.unwrap();
    assert_eq!(response.status(), 200);
    cut.send(true).unwrap();
    response
        .into_body()
        .collect()
        .await
        .map(|_| ())
        .expect_err("the body breaks");
    assert_eq!(only_endpoint(&mesh).failures, 1);
}

#[tokio::test]
async fn our_own_time_limit_is_a_failure_of_the_endpoint() {
    let server = Server::hanging().await;
    let mut policy = Policy::default();
    policy.timeout = Duration::from_millis(30);
    let mesh = mesh(vec![server.endpoint()], policy).await;
    mesh.service("orders").unwrap().get("/").await.unwrap_err();
    let endpoint = only_endpoint(&mesh);
    assert_eq!((endpoint.failures, endpoint.in_flight), (1, 0));
}

#[tokio::test]
async fn a_probe_whose_body_is_dropped_after_the_head_leaves_nothing_stuck() {
    // scenario 25.
    let healthy = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = std::sync::Arc::clone(&healthy);
    let server = Server::start(move |_| {
        let healthy = switch.load(std::sync::atomic::Ordering::SeqCst);
        async move {
            if healthy {
                Response::new(endless())
            } else {
                answer(500, "")
            }
        }
    })
    .await;
    let mut policy = Policy::default();
    policy.breaker.open_for = Duration::from_millis(20);
    policy.breaker.max_open = Duration::from_millis(20);
    policy.retry.attempts = std::num::NonZeroU32::MIN;
    let mesh = mesh(vec![server.endpoint()], policy).await;
    let orders = mesh.service("orders").unwrap();
    while orders.get("/").await.is_ok() {}
    healthy.store(true, std::sync::atomic::Ordering::SeqCst);
    // Each probe's body is dropped after its head: no verdict, and the place is free for the next.
    let mut probes = 0;
    while probes < 5 {
        match orders.get("/").await {
            Ok(response) => {
                probes += 1;
                drop(response);
            }
            Err(error) => {
                assert!(error.is_no_endpoint(), "{error}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// A body that never ends.
fn endless() -> AxumBody {
    AxumBody::from_stream(futures_util::stream::pending::<Result<&str, std::io::Error>>())
}

#[tokio::test]
async fn an_endpoint_that_is_removed_takes_no_new_calls_and_ends_those_it_has() {
    // scenario 27.
    let registry = MemoryRegistry::new();
    let (release, released) = tokio::sync::watch::channel(false);
    let goes = Server::start(move |_| {
        let mut released = released.clone();
        async move {
            released.wait_for(|released| *released).await.unwrap();
            answer(200, "done")
        }
    })
    .await;
    let stays = Server::answering(200, "stays").await;
    let mesh = Mesh::builder("shop")
        .discovery(registry.clone())
        .start()
        .await
        .unwrap();
    let register = |server: &Server| {
        let instance = tower_mesh::Instance::new(name("orders"), server.endpoint());
        let registry = registry.clone();
        async move {
            tower_mesh::core::Register::register(&registry, instance)
                .await
                .unwrap()
        }
    };
    let guard = register(&goes).await;
    let orders = mesh.service("orders").unwrap();
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let orders = orders.clone();
            tokio::spawn(async move { orders.get("/").await })
        })
        .collect();
    until("three calls run", || goes.hits() == 3).await;

    let _other = register(&stays).await;
    guard.deregister().await.unwrap();
    until("only the other is known", || {
        let set = orders.endpoints().current();
        set.endpoints().len() == 1 && set.endpoints()[0] == stays.endpoint()
    })
    .await;
    for _ in 0..20 {
        orders.get("/").await.unwrap();
    }
    assert_eq!((goes.hits(), stays.hits()), (3, 20));
    release.send(true).unwrap();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
}
