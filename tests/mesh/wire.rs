//! What each attempt tells the other side: how long it has, which it is, whose trace it belongs to.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::Request, routing::get};
use http::HeaderMap;
use tower_mesh::{Mesh, Policy, discovery::Static};

use crate::support::{Server, answer, name};

type Seen = Arc<Mutex<Vec<HeaderMap>>>;

/// Answers with `status`, and writes down what it is told.
async fn telling(status: u16, seen: &Seen) -> Server {
    let seen = Arc::clone(seen);
    Server::start(move |request: Request| {
        seen.lock().unwrap().push(request.headers().clone());
        async move { answer(status, "") }
    })
    .await
}

fn said<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    Some(headers.get(name)?.to_str().unwrap())
}

async fn mesh(endpoints: &[&Server], silent: bool) -> Mesh {
    let mut policy = Policy::default();
    policy.timeout = Duration::from_secs(60);
    policy.retry.per_try_timeout = Some(Duration::from_secs(20));
    let endpoints = endpoints.iter().map(|server| server.endpoint());
    let mesh = Mesh::builder("shop")
        .discovery(Static::new().service(name("orders"), endpoints))
        .defaults(policy);
    let mesh = match silent {
        true => mesh.connections(|clients| clients.without_context()),
        false => mesh,
    };
    mesh.start().await.unwrap()
}

// scenario 8
#[tokio::test]
async fn an_attempt_is_told_its_own_time_and_its_number_and_no_trace_that_nobody_gave() {
    let seen = Seen::default();
    let (bad, worse) = (telling(503, &seen).await, telling(503, &seen).await);
    let mesh = mesh(&[&bad, &worse], false).await;
    mesh.service("orders").unwrap().get("/").await.unwrap();
    let seen = seen.lock().unwrap();
    let left = |nth: usize| -> u64 {
        said(&seen[nth], "x-request-timeout-ms")
            .unwrap()
            .parse()
            .unwrap()
    };
    assert!(seen.len() >= 2, "{seen:?}");
    assert!(left(0) <= 20_000 && left(1) <= 20_000, "{seen:?}");
    let attempts: Vec<_> = seen
        .iter()
        .map(|headers| said(headers, "x-mesh-attempt"))
        .collect();
    assert_eq!(attempts[..2], [None, Some("2")]);
    assert!(
        seen.iter()
            .all(|headers| !headers.contains_key("traceparent"))
    );
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What `orders` is told by a call that is made to serve a request in a trace.
async fn told_within_a_trace(silent: bool) -> HeaderMap {
    let seen = Seen::default();
    let orders = telling(200, &seen).await;
    let mesh = mesh(&[&orders], silent).await;
    let client = mesh.service("orders").unwrap();
    let app = Router::new()
        .route(
            "/",
            get(async move || {
                client
                    .get("/")
                    .await
                    .map(drop)
                    .map_err(|_| http::StatusCode::BAD_GATEWAY)
            }),
        )
        .layer(mesh.server_layer());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    let answer = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .get(format!("http://{front}/"))
        .header("traceparent", PARENT)
        .header("x-request-timeout-ms", "5000")
        .send();
    assert_eq!(answer.await.unwrap().status(), 200);
    serving.abort();
    seen.lock().unwrap()[0].clone()
}

#[tokio::test]
async fn a_call_that_serves_a_request_goes_on_in_its_trace_and_within_its_time() {
    let told = told_within_a_trace(false).await;
    assert_eq!(said(&told, "traceparent"), Some(PARENT));
    let left: u64 = said(&told, "x-request-timeout-ms")
        .unwrap()
        .parse()
        .unwrap();
    assert!(left <= 5_000, "{told:?}");
}

#[tokio::test]
async fn who_does_not_want_it_tells_nothing() {
    let told = told_within_a_trace(true).await;
    for header in [
        "traceparent",
        "x-request-timeout-ms",
        "x-mesh-attempt",
        "x-mesh-priority",
    ] {
        assert!(!told.contains_key(header), "{told:?}");
    }
}
