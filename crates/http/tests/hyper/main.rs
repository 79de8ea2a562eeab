//! What hyper's errors and bodies mean, shown on real connections over loopback.

// Tests may spawn and unwrap, their helpers too.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod bodies;
mod connections;
mod errors;
mod http2;
mod probes;
mod streams;
mod support;

use bytes::Bytes;
use http::{Request, StatusCode, header::HOST};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use tower::ServiceExt;
use tower_mesh_core::{Attempt, BoxError, NewService, Replay};
use tower_mesh_http::{
    Body, CompleteOnBody, HttpClassify, HttpEndpoints, HttpReplay, IdleTimeout, TrackedBody,
};

use crate::support::{Client, Report, client, get, read_head, serve};

#[tokio::test]
async fn the_host_is_the_endpoint_unless_the_caller_has_set_one() {
    let (heads, mut seen) = mpsc::unbounded_channel();
    let endpoint = serve(move |mut stream| {
        let heads = heads.clone();
        async move {
            heads.send(read_head(&mut stream).await?).unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await
        }
    })
    .await;
    let request = || Request::get("http://evil.example/a?b").body(Body::empty());
    client(&endpoint).oneshot(request().unwrap()).await.unwrap();
    let head = seen.recv().await.unwrap();
    let expected = format!("host: {}\r\n", endpoint.address());
    assert!(head.starts_with("GET /a?b HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&expected), "{head}");

    let mut own = request().unwrap();
    own.headers_mut()
        .insert(HOST, "orders.example".parse().unwrap());
    client(&endpoint).oneshot(own).await.unwrap();
    let head = seen.recv().await.unwrap();
    assert!(head.contains("host: orders.example\r\n"), "{head}");
    assert_eq!(head.matches("host:").count(), 1, "{head}");
}

#[tokio::test]
async fn dropping_the_service_of_an_endpoint_closes_its_connections_and_leaves_no_task() {
    let (closed, mut closed_seen) = mpsc::unbounded_channel();
    let endpoint = serve(move |mut stream| {
        let closed = closed.clone();
        async move {
            read_head(&mut stream).await?;
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
            closed
                .send(stream.read_to_end(&mut Vec::new()).await?)
                .unwrap();
            Ok(())
        }
    })
    .await;
    // Each task holds a sender: the channel closes when none is left.
    let (running, mut all_ended) = mpsc::channel::<()>(1);
    let endpoints = HttpEndpoints::new(move |task| {
        let running = running.clone();
        drop(tokio::spawn(async move {
            task.await;
            drop(running);
        }));
    });
    let service = endpoints.new_service(&endpoint);
    let response = service.clone().oneshot(get()).await.unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    drop(response);
    assert!(
        closed_seen.try_recv().is_err(),
        "it is kept for the next request"
    );

    drop(service);
    assert_eq!(closed_seen.recv().await, Some(0));
    drop(endpoints);
    assert_eq!(all_ended.recv().await, None);
}

#[test]
fn clients_and_bodies_are_what_tower_axum_and_tonic_ask_for() {
    fn service<T: Clone + Send + Sync + 'static>() {}
    fn value<T: Send + 'static>() {}
    fn response<T: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static>() {
    }
    service::<HttpEndpoints>();
    service::<Client>();
    service::<HttpClassify>();
    service::<HttpReplay>();
    service::<CompleteOnBody>();
    value::<<Client as tower::Service<Request<Body>>>::Future>();
    value::<<HttpReplay as Replay<Request<Body>>>::Kept>();
    response::<TrackedBody<IdleTimeout<Incoming>, Attempt>>();
    response::<TrackedBody<TrackedBody<IdleTimeout<Incoming>, Report>, Report>>();
}
