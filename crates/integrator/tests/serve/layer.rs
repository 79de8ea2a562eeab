//! The layer of a mesh: its limit, its readiness, its counts.

use std::{num::NonZeroUsize, sync::Arc};

use axum::{Router, routing::get};
use http::{Request, StatusCode};
use tokio::sync::Notify;
use tower::{Service, ServiceExt};
use tower_mesh::{Body, MemoryRegistry};

use crate::support::{mesh, text, until};

fn request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn one_request_too_many_is_told_so_and_health_is_not_limited() {
    let mesh = mesh("orders", &MemoryRegistry::new()).await;
    let layer = mesh.server_layer().limit(NonZeroUsize::MIN);
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let app = Router::new()
        .route("/", get(async move || wait.notified().await))
        .layer(layer.clone());
    let first = tokio::spawn(app.clone().oneshot(request("/")));
    until(async || layer.limits().in_use == 1).await;

    let refused = app.clone().oneshot(request("/")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let said = text(refused).await;
    assert!(said.contains(r#""kind":"overloaded""#), "{said}");
    assert!(
        !said.contains("calls may run"),
        "nothing of the inside: {said}"
    );
    let ready = app.clone().oneshot(request("/health/ready")).await.unwrap();
    assert_eq!(ready.status(), StatusCode::OK);

    go.notify_one();
    let answer = first.await.unwrap().unwrap();
    assert_eq!(layer.limits().in_use, 0, "the answer has no body");
    assert_eq!(answer.status(), StatusCode::OK);
    drop(answer);
    let counts = layer.counts();
    assert_eq!(
        (
            counts.requests,
            counts.answered,
            counts.refused,
            counts.in_flight
        ),
        (2, 1, 1, 0)
    );
}

#[tokio::test]
async fn a_handler_that_panics_gives_its_permit_back() {
    let mesh = mesh("orders", &MemoryRegistry::new()).await;
    let layer = mesh.server_layer().limit(NonZeroUsize::MIN);
    let boom = async || -> &'static str { panic!("boom") };
    let mut app = Router::new().route("/", get(boom)).layer(layer.clone());
    for _ in 0..3 {
        let answer = app.call(request("/")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!((layer.limits().in_use, layer.counts().in_flight), (0, 0));
    }
    assert_eq!(layer.counts().panicked, 3);
}

#[tokio::test]
async fn a_mesh_that_has_ended_is_not_ready_and_says_why() {
    let mesh = mesh("orders", &MemoryRegistry::new()).await;
    let app = Router::<()>::new().layer(mesh.server_layer());
    mesh.shutdown(std::time::Duration::ZERO).await.unwrap();
    let ready = app.oneshot(request("/health/ready")).await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        text(ready).await,
        r#"{"ready":false,"reasons":["stopped"]}"#
    );
}
