//! Too much to do: who is let in, and what is said of it.

use std::{
    convert::Infallible,
    future::Future,
    num::NonZeroUsize,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use axum::{Router, routing::get as on_get};
use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_mesh::{
    Body, Config, MemoryRegistry, Mesh,
    core::{Clock, Priority},
    http::{LOAD_HEADER, load_of},
};

use crate::support::{Running, get, mesh, plain, plain_h2, text};

fn request(priority: &str) -> Request<Body> {
    let request = Request::get("/").header("x-mesh-priority", priority);
    request.body(Body::empty()).unwrap()
}

/// Polls it once.
fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    let mut cx = Context::from_waker(Waker::noop());
    future.as_mut().poll(&mut cx)
}

#[tokio::test]
async fn the_sheddable_are_refused_first_and_the_critical_wait_if_they_are_believed() {
    for believed in [false, true] {
        // The clock stands still, so nobody waits in vain.
        let mesh = Mesh::builder("orders").clock(Clock::manual().0);
        let mesh = mesh.start().await.unwrap();
        let mut layer = mesh.server_layer().limit(NonZeroUsize::new(4).unwrap());
        if believed {
            layer = layer.believe_priority(Priority::Critical);
        }
        let app = layer.layer(service_fn(|_: Request<Body>| {
            std::future::pending::<Result<Response<Body>, Infallible>>()
        }));
        let begin = |priority: &str| {
            let mut answer = Box::pin(app.clone().oneshot(request(priority)));
            let status = match poll(&mut answer) {
                Poll::Ready(answer) => Some(answer.unwrap().status()),
                Poll::Pending => None,
            };
            (answer, status)
        };
        let mut running: Vec<_> = ["default", "sheddable", "sheddable"].map(begin).into();
        let full = Some(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(begin("sheddable").1, full);
        running.push(begin("default"));
        assert!(running.iter().all(|(_, status)| status.is_none()));
        assert_eq!((layer.limits().in_use, begin("default").1), (4, full));

        let (mut critical, status) = begin("critical");
        assert_eq!(status, full.filter(|_| !believed));
        if believed {
            drop(running.pop());
            assert_eq!(
                layer.limits().in_use,
                4,
                "the permit is that of the one who waits"
            );
            assert_eq!(begin("default").1, full);
            assert!(poll(&mut critical).is_pending());
        }
    }
}

#[tokio::test]
async fn a_server_says_how_busy_it_is_if_it_is_told_to() {
    for (config, says) in [("", false), ("[server]\nreport_load = true\n", true)] {
        let config = Config::parse(config).unwrap();
        let mesh = Mesh::builder("orders")
            .config(config)
            .start()
            .await
            .unwrap();
        let app = Router::new()
            .route("/", on_get(async || "hello"))
            .layer(mesh.server_layer());
        let answer = app.oneshot(request("default")).await.unwrap();
        assert_eq!(answer.headers().contains_key(LOAD_HEADER), says);
        assert_eq!(load_of(answer.headers()).is_some(), says);
        assert_eq!(text(answer).await, "hello");
    }
}

#[tokio::test]
async fn what_is_configured_holds() {
    let config = "[server]\nmax_in_flight = 7\nadaptive = false\ntimeout = \"20ms\"\n";
    let config = Config::parse(config).unwrap();
    let mesh = Mesh::builder("orders")
        .config(config)
        .start()
        .await
        .unwrap();
    let layer = mesh.server_layer();
    let limits = layer.limits();
    assert_eq!((limits.max, limits.adapts), (7, false));
    let app = Router::new()
        .route("/", on_get(std::future::pending::<()>))
        .layer(layer.clone());
    for _ in 0..10 {
        let late = app.clone().oneshot(request("default")).await.unwrap();
        assert_eq!(late.status(), StatusCode::GATEWAY_TIMEOUT);
    }
    assert_eq!(layer.limits().limit, 7, "it does not adapt");
    let again = Config::parse("[server]\nmax_in_flight = 8\n").unwrap();
    let refused = mesh.reload(&again).unwrap_err().to_string();
    assert!(refused.contains("`server`"), "{refused}");
}

// row 33
#[tokio::test]
async fn oversized_metadata_is_refused_over_http1_and_http2_and_the_server_lives() {
    let mesh = mesh("orders", &MemoryRegistry::new()).await;
    let app = Router::new().route("/", on_get(async || "hello"));
    let server = Running::start(mesh, app, |serve| serve).await;
    for client in [plain(), plain_h2()] {
        let huge = "x".repeat(1_000_000);
        for headers in [
            vec![("x-huge", huge.as_str())],
            vec![("x-many", "x"); 2_000],
        ] {
            let mut request = Request::get(format!("http://{}/", server.address));
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let refused = client.request(request.body(Body::empty()).unwrap()).await;
            // A server may close its connection before all of it was sent.
            if let Ok(refused) = refused {
                assert_eq!(refused.status(), 431);
            }
        }
        let answer = get(&client, server.address, "/").await.unwrap();
        assert_eq!(text(answer).await, "hello");
    }
    assert_eq!(server.mesh.lifecycle(), tower_mesh::Lifecycle::Running);
}

#[tokio::test]
async fn one_who_watches_the_health_does_not_keep_the_process_from_ending() {
    use http_body_util::BodyExt;

    let mesh = mesh("orders", &MemoryRegistry::new()).await;
    let mut server = Running::start(mesh, Router::new(), |serve| {
        serve.propagation(std::time::Duration::ZERO)
    })
    .await;
    let watch = Request::post(format!(
        "http://{}/grpc.health.v1.Health/Watch",
        server.address
    ))
    .header("content-type", "application/grpc")
    .body(Body::from("\0\0\0\0\0"));
    let answer = plain_h2().request(watch.unwrap()).await.unwrap();
    let mut watched = answer.into_body();
    let first = watched.frame().await.unwrap().unwrap();
    assert_eq!(first.data_ref().unwrap()[6], 1);
    server.end();
    let last = watched.collect().await.unwrap();
    assert_eq!(last.trailers().unwrap()["grpc-status"], "14");
    assert_eq!(last.to_bytes()[6], 2);
    server.ended.await.unwrap().unwrap();
}
