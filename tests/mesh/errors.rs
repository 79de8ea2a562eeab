//! Errors that a person can act on.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use tower_mesh::{MemoryRegistry, Mesh, Policy};

use crate::{
    calls::mesh,
    support::{Server, dead_endpoint, until},
};

/// The error and all that caused it, as one text.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text} < {error}");
        next = error.source();
    }
    text
}

#[tokio::test]
async fn an_unknown_service_is_not_found_at_once_and_by_name() {
    let mesh = Mesh::builder("shop")
        .discovery(MemoryRegistry::new())
        .start()
        .await
        .unwrap();
    let error = mesh.service("ordres").unwrap().get("/").await.unwrap_err();
    assert!(
        error.is_service_not_found() && !error.maybe_sent(),
        "{error}"
    );
    assert!(error.to_string().contains("ordres"), "{error}");
    let invalid = mesh.service("a/b").unwrap_err();
    assert!(
        invalid.to_string().contains("'/' is not allowed"),
        "{invalid}"
    );
}

#[tokio::test]
async fn a_service_without_endpoints_says_so_at_once() {
    let mesh = mesh(vec![], Policy::default()).await;
    let error = mesh.service("orders").unwrap().get("/").await.unwrap_err();
    assert!(error.is_no_endpoint() && !error.maybe_sent(), "{error}");
    assert!(error.to_string().contains("lists none"), "{error}");
    mesh.service("orders").unwrap().get("/").await.unwrap_err();
    let status = mesh.status();
    let [seen] = &status.services[0].errors[..] else {
        panic!("one kind: {status}")
    };
    assert_eq!((seen.kind, seen.count), ("no_endpoint", 2));
    assert!(seen.sample.contains("lists none"), "{seen:?}");
    assert!(status.to_string().contains("no_endpoint x 2"), "{status}");
}

#[tokio::test]
async fn when_every_breaker_is_open_the_refusal_says_how_many_why_and_when_to_come_back() {
    let (one, two) = (
        Server::answering(500, "").await,
        Server::answering(500, "").await,
    );
    let mut policy = Policy::default();
    policy.breaker.open_for = Duration::from_secs(60);
    let mesh = mesh(vec![one.endpoint(), two.endpoint()], policy).await;
    let orders = mesh.service("orders").unwrap();
    let mut refused = None;
    for _ in 0..200 {
        if let Err(error) = orders.get("/").await
            && error.is_no_endpoint()
        {
            refused = Some(error);
            break;
        }
    }
    let error = refused.expect("both breakers open");
    let text = chain(&error);
    assert!(
        text.contains("2 known") && text.contains("breaker"),
        "{text}"
    );
    assert!(
        error
            .retry_after()
            .is_some_and(|after| after > Duration::from_secs(1)),
        "{text}"
    );
    let status = mesh.status();
    assert!(status.services[0].panic);
    assert!(status.to_string().contains(", panic: "), "{status}");
    let hits = one.hits() + two.hits();
    for _ in 0..100 {
        assert!(orders.get("/").await.unwrap_err().is_no_endpoint());
    }
    assert_eq!(
        one.hits() + two.hits(),
        hits,
        "never unlimited traffic to the dead"
    );
}

#[tokio::test]
async fn exhausted_attempts_name_each_endpoint_and_its_error() {
    let (one, two) = (dead_endpoint().await, dead_endpoint().await);
    let mesh = mesh(vec![one.clone(), two.clone()], Policy::default()).await;
    let error = mesh.service("orders").unwrap().get("/").await.unwrap_err();
    let text = chain(&error);
    assert!(error.is_attempts_exhausted(), "{text}");
    assert!(!error.maybe_sent(), "nothing was sent: {text}");
    for endpoint in [one, two] {
        assert!(
            text.contains(&endpoint.address().to_string()),
            "{} is missing in {text}",
            endpoint.id()
        );
    }
    assert!(text.to_lowercase().contains("refused"), "{text}");
}

#[tokio::test]
async fn a_deadline_says_where_the_time_went() {
    let server = Server::hanging().await;
    let mut policy = Policy::default();
    policy.timeout = Duration::from_millis(60);
    let mesh = mesh(vec![server.endpoint()], policy).await;
    let error = mesh.service("orders").unwrap().get("/").await.unwrap_err();
    let text = chain(&error);
    assert!(error.is_deadline_exceeded() && error.maybe_sent(), "{text}");
    assert!(text.contains("60ms") && text.contains("attempt"), "{text}");
}

#[tokio::test]
async fn a_full_bulkhead_refuses_at_once_and_says_its_limit() {
    let server = Server::hanging().await;
    let mut policy = Policy::default();
    policy.limit.max_in_flight = NonZeroUsize::MIN;
    let mesh = mesh(vec![server.endpoint()], policy).await;
    let orders = mesh.service("orders").unwrap();
    let running = tokio::spawn({
        let orders = orders.clone();
        async move { orders.get("/").await }
    });
    until("the first call runs", || server.hits() == 1).await;
    let error = orders.get("/").await.unwrap_err();
    assert!(error.is_overloaded() && !error.maybe_sent(), "{error}");
    assert!(error.to_string().contains('1'), "{error}");
    running.abort();
    until("its permit is back", || {
        mesh.status().services[0].limit.in_use == 0
    })
    .await;
}

#[tokio::test]
async fn an_open_service_breaker_refuses_with_the_time_to_come_back() {
    // So many endpoints that none fails five times before the service has.
    let mut servers = Vec::new();
    for _ in 0..8 {
        servers.push(Server::answering(500, "").await);
    }
    let mut policy = Policy::default();
    policy.breaker.service = true;
    policy.breaker.open_for = Duration::from_secs(60);
    policy.retry.attempts = NonZeroU32::MIN;
    let mesh = mesh(servers.iter().map(Server::endpoint).collect(), policy).await;
    let orders = mesh.service("orders").unwrap();
    for _ in 0..5 {
        assert_eq!(orders.get("/").await.unwrap().status(), 500);
    }
    let error = orders.get("/").await.unwrap_err();
    assert!(error.is_circuit_open() && !error.maybe_sent(), "{error}");
    assert!(
        error
            .retry_after()
            .is_some_and(|after| after > Duration::from_secs(10)),
        "{error}"
    );
    assert_eq!(servers.iter().map(Server::hits).sum::<u64>(), 5);
}
