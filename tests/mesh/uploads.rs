//! Bodies that stream, sent again: to another endpoint, from the beginning, while they are still being made.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    body::{Body as AxumBody, BodyDataStream},
    extract::Request as AxumRequest,
    response::Response,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_mesh::{
    Body, Policy,
    balance::BalanceLayer,
    core::Endpoint,
    discovery::{Discovery, Static},
    http::{CompleteOnBody, HttpClassify, HttpEndpoints, HttpReplay, Protocol},
    retry::{Budget, RetryLayer},
};

use crate::{
    calls::mesh,
    support::{Server, answer, name},
};

/// What an endpoint does when it has read the first half of a body.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fails {
    /// It answers that it has too much to do.
    Overloaded,
    /// Its connection, or in HTTP/2 its stream, is gone.
    Dies,
    /// It neither reads nor answers any more.
    Hangs,
    /// It reads the rest too, and then has too much to do.
    Late,
}

const FIRST: &str = "first half, ";
const SECOND: &str = "second half";

/// Two servers, of which the one that is called first fails half-way and tells; the other answers with all that it has
/// received.
async fn servers(fails: Fails) -> ([Server; 2], mpsc::UnboundedReceiver<()>) {
    let (tell, half_way) = mpsc::unbounded_channel();
    let is_first = Arc::new(AtomicBool::new(true));
    let server = || {
        let (is_first, tell) = (Arc::clone(&is_first), tell.clone());
        Server::start(move |request: AxumRequest| {
            let (is_first, tell) = (is_first.swap(false, Ordering::SeqCst), tell.clone());
            async move {
                if is_first {
                    fail(fails, request.into_body().into_data_stream(), tell).await
                } else {
                    echo(request).await
                }
            }
        })
    };
    ([server().await, server().await], half_way)
}

async fn fail(
    fails: Fails,
    mut body: BodyDataStream,
    half_way: mpsc::UnboundedSender<()>,
) -> Response {
    assert_eq!(body.next().await.unwrap().unwrap(), FIRST);
    half_way.send(()).unwrap();
    match fails {
        Fails::Overloaded => answer(503, "too much"),
        // Without a word on standard error.
        Fails::Dies => std::panic::resume_unwind(Box::new("it dies")),
        Fails::Hangs => std::future::pending().await,
        Fails::Late => {
            while body.next().await.is_some() {}
            answer(503, "too much")
        }
    }
}

/// Answers with the body and its trailer.
async fn echo(request: AxumRequest) -> Response {
    let body = request.into_body().collect().await.unwrap();
    let sum = body.trailers().map(|trailers| trailers["x-sum"].clone());
    let mut response = Response::new(AxumBody::from(body.to_bytes()));
    if let Some(sum) = sum {
        response.headers_mut().insert("x-sum", sum);
    }
    response
}

/// A body of which only the first half exists, until the endpoint has failed with that.
fn made_while_sent(mut half_way: mpsc::UnboundedReceiver<()>) -> Body {
    let rest = stream::once(async move {
        half_way.recv().await.unwrap();
        Frame::data(SECOND.into())
    });
    let sum = HeaderName::from_static("x-sum");
    let trailers = HeaderMap::from_iter([(sum, HeaderValue::from_static("23"))]);
    let frames = stream::once(async { Frame::data(FIRST.into()) })
        .chain(rest)
        .chain(stream::once(async { Frame::trailers(trailers) }));
    Body::new(StreamBody::new(frames.map(Ok::<_, BoxError>).boxed()))
}

fn put(body: Body) -> Request<Body> {
    Request::put("/").body(body).unwrap()
}

/// `retry` over a balancer, with clients of this protocol.
fn stack(
    retry: RetryLayer,
    endpoints: Vec<Endpoint>,
    protocol: Protocol,
) -> impl Service<
    Request<Body>,
    Response = http::Response<impl http_body::Body<Data = Bytes, Error: std::fmt::Debug>>,
    Error = BoxError,
> {
    let orders = name("orders");
    let (discovery, driver) =
        Discovery::builder(Static::new().service(orders.clone(), endpoints)).build();
    tokio::spawn(driver);
    let connect = HttpEndpoints::new(|task| drop(tokio::spawn(task))).protocol(protocol);
    ServiceBuilder::new()
        .layer(discovery.layer(&orders))
        .layer(
            retry
                .replay(HttpReplay::new())
                .classify(HttpClassify::new()),
        )
        .layer(
            BalanceLayer::new(discovery.endpoints(&orders))
                .classify(HttpClassify::new())
                .completion(CompleteOnBody::new()),
        )
        .service(connect)
}

async fn sent_again(fails: Fails, protocol: Protocol) {
    let (servers, half_way) = servers(fails).await;
    let endpoints = servers.iter().map(Server::endpoint).collect();
    let request = put(made_while_sent(half_way));
    let retry = RetryLayer::new(Budget::default()).per_try_timeout(Duration::from_millis(500));
    let response = stack(retry, endpoints, protocol)
        .oneshot(request)
        .await
        .unwrap();
    let hits: Vec<_> = servers.iter().map(Server::hits).collect();
    assert_eq!((response.status().as_u16(), hits), (200, vec![1, 1]));
    if protocol == Protocol::Http2 {
        assert_eq!(response.headers()["x-sum"], "23", "the trailers came too");
    }
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, format!("{FIRST}{SECOND}").as_bytes());
}

#[tokio::test]
async fn what_an_endpoint_declines_half_way_another_gets_whole() {
    sent_again(Fails::Overloaded, Protocol::Http1).await;
    sent_again(Fails::Overloaded, Protocol::Http2).await;
}

#[tokio::test]
async fn what_an_endpoint_takes_with_it_when_it_dies_half_way_another_gets_whole() {
    sent_again(Fails::Dies, Protocol::Http1).await;
    sent_again(Fails::Dies, Protocol::Http2).await;
}

#[tokio::test]
async fn what_stands_still_half_way_at_one_endpoint_another_gets_whole() {
    sent_again(Fails::Hangs, Protocol::Http1).await;
    sent_again(Fails::Hangs, Protocol::Http2).await;
}

#[tokio::test]
async fn what_was_sent_whole_and_declined_then_another_gets_whole_with_its_trailers() {
    sent_again(Fails::Late, Protocol::Http1).await;
    sent_again(Fails::Late, Protocol::Http2).await;
}

#[tokio::test]
async fn the_mesh_sends_again_what_streams() {
    let (servers, half_way) = servers(Fails::Overloaded).await;
    let endpoints = servers.iter().map(Server::endpoint).collect();
    let mesh = mesh(endpoints, Policy::default()).await;
    let orders = mesh.service("orders").unwrap();
    let response = orders.send(put(made_while_sent(half_way))).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, format!("{FIRST}{SECOND}").as_bytes());
    assert_eq!(mesh.status().services[0].retries.made, 1);
}

#[tokio::test]
async fn a_post_that_streams_goes_on_from_an_endpoint_where_nobody_listens() {
    let alive = Server::start(echo).await;
    for _ in 0..10 {
        let endpoints = vec![crate::support::dead_endpoint().await, alive.endpoint()];
        let mesh = mesh(endpoints, Policy::default()).await;
        let frames = ["a", "b"].map(|data| Ok::<_, BoxError>(Frame::data(data.into())));
        let body = Body::new(StreamBody::new(stream::iter(frames)));
        let request = Request::post("/").body(body).unwrap();
        let response = mesh.service("orders").unwrap().send(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "ab");
    }
}

#[tokio::test]
async fn what_is_longer_than_is_kept_comes_back_with_the_first_answer() {
    const PIECES: usize = 20;
    let server = || {
        Server::start(|request| async move {
            let read = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(read.len(), PIECES * 4_096, "it was sent once, and whole");
            answer(503, "too much")
        })
    };
    let servers = [server().await, server().await];
    let mesh = mesh(
        servers.iter().map(Server::endpoint).collect(),
        Policy::default(),
    )
    .await;
    let pieces = (0..PIECES).map(|_| Ok::<_, BoxError>(Frame::data(Bytes::from(vec![0; 4_096]))));
    let body = Body::new(StreamBody::new(stream::iter(pieces)));
    let orders = mesh.service("orders").unwrap();
    let response = orders.send(put(body)).await.unwrap();
    assert_eq!(response.status(), 503);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "too much", "unchanged");
    assert_eq!(servers.iter().map(Server::hits).sum::<u64>(), 1);
}

/// What two servers answer, of which the one that is called first reads all of it and declines, and how often they were called.
async fn declined_once(body: Body, protocol: Protocol) -> (http::Response<Bytes>, u64) {
    let is_first = Arc::new(AtomicBool::new(true));
    let server = || {
        let is_first = Arc::clone(&is_first);
        Server::start(move |request: AxumRequest| {
            let is_first = is_first.swap(false, Ordering::SeqCst);
            async move {
                let answered = echo(request).await;
                match is_first {
                    true => answer(503, "too much"),
                    false => answered,
                }
            }
        })
    };
    let servers = [server().await, server().await];
    let endpoints = servers.iter().map(Server::endpoint).collect();
    let patient = RetryLayer::new(Budget::default());
    let response = stack(patient, endpoints, protocol)
        .oneshot(put(body))
        .await
        .unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let hits = servers.iter().map(Server::hits).sum();
    (http::Response::from_parts(head, body), hits)
}

// scenario 10
#[tokio::test]
async fn what_is_65536_bytes_is_sent_again_byte_for_byte_and_one_byte_more_is_sent_once() {
    let bytes = |length: usize| Bytes::from_iter((0..length).map(|at| (at % 251) as u8));
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (again, hits) = declined_once(bytes(65_536).into(), protocol).await;
        assert_eq!((again.status().as_u16(), hits), (200, 2), "{protocol:?}");
        assert!(again.body() == &bytes(65_536), "another body came");
        let (once, hits) = declined_once(bytes(65_537).into(), protocol).await;
        assert_eq!((once.status().as_u16(), hits), (503, 1), "{protocol:?}");
        assert_eq!(once.body(), "too much", "intact");
    }
}

// scenario 10, with the trailers counted: `x-sum` and its value are six of the bytes.
#[tokio::test]
async fn a_stream_of_65536_bytes_is_sent_again_with_its_trailers_and_one_byte_more_is_sent_once() {
    let streamed = |length: usize| {
        let data = Bytes::from_iter((0..length - 6).map(|at| (at % 251) as u8));
        let pieces: Vec<_> = data.chunks(9_999).map(Bytes::copy_from_slice).collect();
        let sum = HeaderName::from_static("x-sum");
        let sum = HeaderMap::from_iter([(sum, HeaderValue::from_static("7"))]);
        let frames = pieces.into_iter().map(Frame::data);
        let frames = frames.chain([Frame::trailers(sum)]).map(Ok::<_, BoxError>);
        (data, Body::new(StreamBody::new(stream::iter(frames))))
    };
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (data, body) = streamed(65_536);
        let (again, hits) = declined_once(body, protocol).await;
        assert_eq!((again.status().as_u16(), hits), (200, 2), "{protocol:?}");
        assert!(again.body() == &data, "another body came");
        // HTTP/1.1 has trailers only for who announces them.
        let trailers = again.headers().contains_key("x-sum");
        assert_eq!(trailers, protocol == Protocol::Http2);
        let (once, hits) = declined_once(streamed(65_537).1, protocol).await;
        assert_eq!((once.status().as_u16(), hits), (503, 1), "{protocol:?}");
        assert_eq!(once.body(), "too much", "intact");
    }
}
