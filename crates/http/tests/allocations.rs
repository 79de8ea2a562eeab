//! What this crate allocates beside hyper's own client, for a whole exchange over a kept connection.

// Tests may spawn and unwrap, their helpers too.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::{
    convert::Infallible,
    fmt::Debug,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::mpsc,
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    net::TcpListener,
    runtime::{self, Runtime},
};
use tower::{Layer, Service, ServiceExt, load::TrackCompletion};
use tower_mesh_core::{Clock, Endpoint, Finish, NewService, Outcome, Replay, frame};
use tower_mesh_http::{
    Addressed, AddressedShared, Body, ClassifyLayer, CompleteOnBody, HttpClient, HttpEndpoints,
    HttpReplay, Seen, server::ServerLayer,
};

/// A server on a thread of its own, since only this thread's allocations are counted.
fn server() -> SocketAddr {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let answer = hyper::service::service_fn(async |_| {
                    Ok::<_, Infallible>(Response::new(Body::from("hello")))
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer),
                );
            }
        });
    });
    told.recv().unwrap()
}

fn runtime() -> Runtime {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// What most calls of `exchange` allocate, when the connection is there.
fn allocations<F: Future<Output = ()>>(
    runtime: &Runtime,
    request: impl Fn() -> Request<Body>,
    mut exchange: impl FnMut(Request<Body>) -> F,
) -> u64 {
    let mut counts: Vec<u64> = (0..51)
        .map(|_| {
            let request = request();
            allocation_counter::measure(|| runtime.block_on(exchange(request))).count_total
        })
        .collect();
    counts.sort_unstable();
    counts[counts.len() / 2]
}

async fn read<B>(response: Response<B>)
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Debug,
{
    let mut body = pin!(response.into_body());
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame.unwrap().data_ref().map_or(0, |data| data.len());
    }
    assert_eq!(read, "hello".len());
}

async fn call<S, B>(mut service: S, request: Request<Body>) -> Response<B>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Debug,
{
    service.ready().await.unwrap().call(request).await.unwrap()
}

fn get(to: SocketAddr) -> Request<Body> {
    Request::get(format!("http://{to}/orders/42"))
        .body(Body::empty())
        .unwrap()
}

fn post_of_constants(to: SocketAddr) -> Request<Body> {
    let mut request = Request::post(format!("http://{to}/orders"))
        .body(Body::from("{}"))
        .unwrap();
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, json);
    request
}

fn post_of_strings(to: SocketAddr) -> Request<Body> {
    Request::post(format!("http://{to}/orders"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, "Bearer 0123456789")
        .body(Body::from(vec![b'x'; 100]))
        .unwrap()
}

#[test]
fn addressing_and_holding_guards_allocate_nothing_and_keeping_a_request_little() {
    let address = server();
    let endpoint = Endpoint::new(address);
    let runtime = runtime();
    let executor = runtime.handle().clone();
    let bare = Client::builder(TokioExecutor::new()).build_http();
    let own = AddressedShared::new(bare.clone()).new_service(&endpoint);
    let ours = HttpEndpoints::new(move |task| drop(executor.spawn(task))).new_service(&endpoint);

    // What keeping allocates: the list of the headers, and what counts the owners of each header value and of the body,
    // where these were not shared before.
    for (name, request, keeping) in [
        ("GET", get as fn(_) -> _, 0),
        ("POST of constants", post_of_constants, 1),
        ("POST of strings", post_of_strings, 1 + 2 + 1),
    ] {
        let request = || request(address);
        let bare = allocations(&runtime, request, |request| {
            let service = bare.clone();
            async { read(call(service, request).await).await }
        });
        let own = allocations(&runtime, request, |request| {
            let service = own.clone();
            async { read(call(service, request).await).await }
        });
        let endpoints = allocations(&runtime, request, |request| {
            let service = ours.clone();
            async { read(call(service, request).await).await }
        });
        let timed = allocations(&runtime, request, |request| timed(ours.clone(), request));
        let tracked = allocations(&runtime, request, |request| tracked(ours.clone(), request));
        let kept = allocations(&runtime, request, |request| kept(ours.clone(), request));
        println!(
            "{name}: bare client {bare}, addressed {own}, HttpEndpoints {endpoints}, with a deadline {timed}, tracked twice {tracked}, kept {kept}"
        );
        assert_eq!(own, bare, "{name}: addressing allocates");
        assert!(endpoints <= bare, "{name}: our client allocates more");
        // The header's value. The list of headers has room for it: there is `Host` in it already.
        assert_eq!(timed, endpoints + 1, "{name}: the deadline's header");
        assert_eq!(tracked, endpoints, "{name}: holding guards allocates");
        assert_eq!(kept, endpoints + keeping, "{name}: keeping allocates");
    }
}

async fn tracked(service: Addressed<HttpClient>, request: Request<Body>) {
    let (attempt, permit) = (Guard, Guard);
    let response = call(service, request).await;
    let response = CompleteOnBody::new().track_completion(attempt, response);
    read(CompleteOnBody::new().track_completion(permit, response)).await;
}

/// Calls as the balancer does, in a call that has a deadline.
async fn timed(mut service: Addressed<HttpClient>, request: Request<Body>) {
    let (clock, mut request) = (Clock::tokio(), Some(request));
    service.ready().await.unwrap();
    let mut answer = None;
    poll_fn(|cx| {
        pin!(frame::Call::new()).poll(&clock, cx, |_| {
            frame::shorten_deadline(frame::now(&clock) + Duration::from_secs(2));
            answer = frame::hide(|| request.take().map(|request| service.call(request)));
            Poll::Ready(())
        })
    })
    .await;
    read(answer.unwrap().await.unwrap()).await;
}

async fn kept(service: Addressed<HttpClient>, mut request: Request<Body>) {
    let kept = HttpReplay::new().keep(&mut request);
    read(call(service, request).await).await;
    assert!(kept.is_some());
}

struct Guard;

impl Finish for Guard {
    fn finish(&mut self, outcome: Outcome) {
        assert!(outcome.is_success());
    }
}

/// A request whose body is a stream of constants, of which 32 come without a pause.
fn put_of_a_stream() -> Request<Body> {
    let frames =
        (0..40).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'x'; 100]))));
    let body = Body::new(StreamBody::new(tokio_stream::iter(frames)));
    let mut request = Request::new(body);
    *request.method_mut() = Method::PUT;
    request
}

#[test]
fn a_stream_that_is_kept_costs_one_allocation_and_the_room_for_what_is_recorded() {
    let mut request = put_of_a_stream();
    let mut kept = None;
    let keeping = allocation_counter::measure(|| kept = HttpReplay::new().keep(&mut request));
    assert_eq!(keeping.count_total, 1);

    let mut body = request.into_body();
    let mut frame = || {
        let mut cx = Context::from_waker(Waker::noop());
        let polled = Pin::new(&mut body).poll_frame(&mut cx);
        assert!(matches!(polled, Poll::Ready(Some(Ok(_)))), "{polled:?}");
    };
    let mut reading =
        |frames| allocation_counter::measure(|| (0..frames).for_each(|_| frame())).count_total;
    assert_eq!(reading(10), 1, "1 KiB at first");
    assert_eq!(reading(5), 1, "then twice that");
    kept = None;
    assert_eq!(reading(15), 0, "nobody can want it again");
    assert!(kept.is_none());
}

/// What most requests of a server allocate, beyond what its handler does.
fn served<S>(server: S, headers: &[(&'static str, &'static str)]) -> u64
where
    S: Service<Request<Body>, Error = Infallible> + Clone,
{
    let mut counts: Vec<u64> = (0..51)
        .map(|_| {
            let mut request = Request::new(Body::empty());
            for (name, value) in headers {
                let value = HeaderValue::from_static(value);
                request.headers_mut().insert(*name, value);
            }
            let mut server = server.clone();
            let answer = || drop(tokio_test::block_on(server.call(request)).unwrap());
            allocation_counter::measure(answer).count_total
        })
        .collect();
    counts.sort_unstable();
    counts[counts.len() / 2]
}

#[test]
fn a_classification_of_the_users_own_costs_five_allocations_a_call() {
    let endpoint = tower::service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new(Body::from("hello")))
    });
    let layer = ClassifyLayer::new(|_: &Seen<'_>| None);
    let calls = || {
        let answer = layer.layer(endpoint).oneshot(Request::new(Body::empty()));
        drop(tokio_test::block_on(answer).unwrap());
    };
    let bare = || {
        let answer = endpoint.oneshot(Request::new(Body::empty()));
        drop(tokio_test::block_on(answer).unwrap());
    };
    let counted = |call: &dyn Fn()| {
        let mut counts: Vec<u64> = (0..51)
            .map(|_| allocation_counter::measure(call).count_total)
            .collect();
        counts.sort_unstable();
        counts[counts.len() / 2]
    };
    assert_eq!(counted(&calls) - counted(&bare), 5);
}

#[test]
fn a_server_answers_without_an_allocation_of_its_own_within_a_deadline_or_without() {
    let handler = tower::service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new(Body::from("hello")))
    });
    let bare = served(handler, &[]);
    for headers in [
        &[][..],
        &[("x-request-timeout-ms", "5000")],
        &[("content-type", "application/grpc"), ("grpc-timeout", "5S")],
    ] {
        let layer = ServerLayer::new();
        assert_eq!(served(layer.over(handler), headers), bare, "{headers:?}");
        assert_eq!(served(layer.layer(handler), headers), bare, "{headers:?}");
    }
}
