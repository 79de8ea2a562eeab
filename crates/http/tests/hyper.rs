//! What hyper's errors and bodies mean, shown on real connections over loopback.

#![allow(clippy::disallowed_methods)] // Tests may spawn.

use std::{
    convert::Infallible,
    future::Future,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version, header::HOST};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tower::{ServiceExt, load::TrackCompletion, service_fn};
use tower_mesh_core::{
    BoxError, Class, Classify, Endpoint, Finish, Kind, NewService, Outcome, Pushback, Refusal,
    Replay, Sent, Verdict,
};
use tower_mesh_http::{
    Addressed, AddressedShared, Body, CompleteOnBody, HttpClassify, HttpClient, HttpEndpoints,
    HttpReplay, Protocol, TrackedBody, TransportError,
};

type Client = Addressed<HttpClient>;

/// Listens, and gives each connection to `handle`, one after the other.
async fn serve<F>(mut handle: impl FnMut(TcpStream) -> F + Send + 'static) -> Endpoint
where
    F: Future<Output = io::Result<()>> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // What goes wrong with a connection is the client's to tell.
            let _ = handle(stream).await;
        }
    });
    Endpoint::new(address)
}

/// Answers every request with `response`, byte for byte, and closes.
async fn answer(response: &'static str) -> Endpoint {
    serve(async move |mut stream| {
        read_head(&mut stream).await?;
        stream.write_all(response.as_bytes()).await
    })
    .await
}

async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A place where nobody listens.
async fn nobody() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Endpoint::new(listener.local_addr().unwrap())
}

fn endpoints() -> HttpEndpoints {
    HttpEndpoints::new(|task| drop(tokio::spawn(task)))
}

fn client(endpoint: &Endpoint) -> Client {
    endpoints().new_service(endpoint)
}

fn h2_client(endpoint: &Endpoint) -> Client {
    endpoints().protocol(Protocol::Http2).new_service(endpoint)
}

fn get() -> Request<Body> {
    Request::get("/").body(Body::empty()).unwrap()
}

fn post() -> Request<Body> {
    Request::post("/").body("payload".into()).unwrap()
}

fn refusal(error: &BoxError) -> &Refusal {
    Refusal::of(&**error).expect("hyper's errors are explained")
}

fn outcome<B: http_body::Body>(result: Result<&Response<B>, &BoxError>) -> Verdict {
    HttpClassify::new().classify(result.map_err(|error| &**error))
}

fn class_of(error: &BoxError) -> Class {
    match outcome(Err::<&Response<Body>, _>(error)) {
        Verdict::Done(outcome) => {
            assert_eq!(outcome.sent(), refusal(error).sent());
            outcome.class()
        }
        Verdict::Deferred => panic!("an error is known at once"),
    }
}

// scenario 9, row 32
#[tokio::test]
async fn a_refused_connection_was_surely_not_sent_so_even_a_post_may_go_elsewhere() {
    let nobody = nobody().await;
    let plain = legacy::Client::builder(TokioExecutor::new()).build_http();
    let shared = AddressedShared::new(plain).new_service(&nobody);
    for error in [
        client(&nobody).oneshot(post()).await.unwrap_err(),
        h2_client(&nobody).oneshot(post()).await.unwrap_err(),
        shared.oneshot(post()).await.unwrap_err(),
    ] {
        assert_eq!(refusal(&error).kind(), Kind::Connect);
        assert_eq!(refusal(&error).sent(), Sent::Never);
        assert_eq!(class_of(&error), Class::Failure);
        let message = error.to_string();
        assert!(message.contains(&nobody.address().to_string()), "{message}");
        assert!(message.contains("refused"), "{message}");
        let explained: &TransportError = error.downcast_ref().unwrap();
        assert!(explained.is_connect());
        assert!(explained.cause().is::<legacy::Error>());
    }
}

#[tokio::test]
async fn a_client_that_is_not_addressed_is_judged_the_same() {
    let uri = format!("http://{}/", nobody().await.address());
    let plain = legacy::Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(uri).body(Body::empty()).unwrap();
    let error: BoxError = plain.request(request).await.unwrap_err().into();
    let expected = Outcome::failure().never_sent();
    assert_eq!(outcome(Err::<&Response<Body>, _>(&error)), expected.into());
}

// scenario 9, flaw Q1
#[tokio::test]
async fn a_503_comes_after_the_bytes_were_sent_so_a_post_stays_sent_and_retry_after_is_heard() {
    let busy = answer("HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n").await;
    let response = client(&busy).oneshot(post()).await.unwrap();
    let after = Pushback::After(Duration::from_secs(7));
    let expected = Outcome::overload().with_pushback(after);
    assert_eq!(expected.sent(), Sent::Maybe);
    assert_eq!(outcome(Ok(&response)), expected.into());
    assert!(!HttpReplay::new().is_idempotent(&post()));
}

#[tokio::test]
async fn a_server_that_reads_the_request_and_closes_may_have_done_what_it_said() {
    let silent = answer("").await;
    let error = client(&silent).oneshot(post()).await.unwrap_err();
    assert_eq!(refusal(&error).kind(), Kind::Transport);
    assert_eq!(refusal(&error).sent(), Sent::Maybe);
    assert_eq!(class_of(&error), Class::Failure);
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_a_failure() {
    let odd = answer("SSH-2.0-OpenSSH_9.6\r\n").await;
    let error = client(&odd).oneshot(get()).await.unwrap_err();
    assert_eq!(refusal(&error).sent(), Sent::Maybe);
    assert_eq!(class_of(&error), Class::Failure);
}

#[tokio::test]
async fn whenever_never_sent_is_said_the_server_has_seen_no_byte() {
    let (seen, mut seen_by_server) = mpsc::unbounded_channel();
    let mut connection = 0;
    let closing = serve(move |mut stream| {
        let seen = seen.clone();
        connection += 1;
        async move {
            // Closes before, while or after the request is written.
            for _ in 0..connection % 8 {
                tokio::task::yield_now().await;
            }
            stream.shutdown().await?;
            let mut read = Vec::new();
            let _ = stream.read_to_end(&mut read).await;
            seen.send(read.len()).unwrap();
            Ok(())
        }
    })
    .await;
    for _ in 0..200 {
        let error = client(&closing).oneshot(post()).await.unwrap_err();
        assert_eq!(refusal(&error).kind(), Kind::Transport);
        assert_eq!(class_of(&error), Class::Failure);
        let bytes = seen_by_server.recv().await.unwrap();
        if refusal(&error).sent() == Sent::Never {
            assert_eq!(bytes, 0, "{error}");
        }
    }
}

#[tokio::test]
async fn what_hyper_cancels_before_it_is_begun_was_never_sent() {
    let (io, _other_end) = tokio::io::duplex(64);
    let (sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
    drop(connection);
    let sender = Arc::new(Mutex::new(sender));
    let closed = service_fn(move |request| sender.lock().unwrap().send_request(request));
    let error = Addressed::new(closed, &nobody().await)
        .oneshot(post())
        .await
        .unwrap_err();
    assert_eq!(refusal(&error).kind(), Kind::Transport);
    assert_eq!(refusal(&error).sent(), Sent::Never);
    assert_eq!(class_of(&error), Class::Failure);
}

#[tokio::test]
async fn a_request_body_that_breaks_says_nothing_of_the_endpoint() {
    let patient = serve(async |mut stream| {
        let _ = stream.read_to_end(&mut Vec::new()).await;
        Ok(())
    })
    .await;
    let frames: [Result<Frame<Bytes>, BoxError>; 2] =
        [Ok(Frame::data("a".into())), Err("disk on fire".into())];
    let body = Body::new(StreamBody::new(tokio_stream::iter(frames)));
    let request = Request::put("/").body(body).unwrap();
    let error = client(&patient).oneshot(request).await.unwrap_err();
    assert!(refusal(&error).is_local());
    assert_eq!(refusal(&error).sent(), Sent::Maybe);
    assert_eq!(class_of(&error), Class::Neutral);
    assert!(error.to_string().contains("disk on fire"), "{error}");
}

#[derive(Debug)]
struct Report(mpsc::UnboundedSender<Option<Class>>);

impl Finish for Report {
    fn finish(&mut self, outcome: Outcome) {
        self.0.send(Some(outcome.class())).unwrap();
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let _ = self.0.send(None);
    }
}

type Reports = mpsc::UnboundedReceiver<Option<Class>>;

fn track(response: Response<Incoming>) -> (TrackedBody<Incoming, Report>, Reports) {
    let (report, reports) = mpsc::unbounded_channel();
    let response = CompleteOnBody::new().track_completion(Report(report), response);
    (response.into_body(), reports)
}

fn seen(reports: &mut Reports) -> Vec<Option<Class>> {
    std::iter::from_fn(|| reports.try_recv().ok()).collect()
}

const SUCCESS: [Option<Class>; 2] = [Some(Class::Success), None];

#[tokio::test]
async fn a_server_that_closes_in_the_middle_of_the_body_has_failed_after_a_good_head() {
    let broken = answer("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await;
    let response = client(&broken).oneshot(get()).await.unwrap();
    assert_eq!(outcome(Ok(&response)), Verdict::Deferred);
    let (mut body, mut reports) = track(response);
    let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(data, "abc");
    assert_eq!(seen(&mut reports), []);
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(seen(&mut reports), [Some(Class::Failure), None]);
    assert_eq!(refusal(&error).kind(), Kind::Transport);
    assert_eq!(refusal(&error).sent(), Sent::Maybe);
}

#[tokio::test]
async fn a_body_of_known_length_ends_with_its_last_byte() {
    let fine = answer("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc").await;
    let response = client(&fine).oneshot(get()).await.unwrap();
    let (mut body, mut reports) = track(response);
    assert!(body.frame().await.unwrap().is_ok());
    assert_eq!(seen(&mut reports), SUCCESS, "without another poll");
}

#[tokio::test]
async fn a_chunked_body_ends_with_its_trailers_or_without() {
    for chunked in [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n",
    ] {
        let endpoint = answer(chunked).await;
        let response = client(&endpoint).oneshot(get()).await.unwrap();
        let (body, mut reports) = track(response);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        assert_eq!(seen(&mut reports), SUCCESS);
    }
}

#[tokio::test]
async fn a_response_without_a_body_is_known_at_the_head() {
    for (method, head) in [
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n"),
        (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        (
            Method::HEAD,
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
        ),
    ] {
        let endpoint = answer(head).await;
        let mut request = get();
        *request.method_mut() = method;
        let response = client(&endpoint).oneshot(request).await.unwrap();
        assert_eq!(outcome(Ok(&response)), Outcome::success().into(), "{head}");
        let (_body, mut reports) = track(response);
        assert_eq!(seen(&mut reports), SUCCESS, "{head}");
    }
}

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

/// Speaks as much HTTP/2 as it takes to answer the first request with `frames`, and reads until the client closes.
async fn h2_answer(frames: impl IntoIterator<Item = Vec<u8>>) -> Endpoint {
    let answer: Vec<u8> = frames.into_iter().flatten().collect();
    serve(move |mut stream| {
        let answer = answer.clone();
        async move {
            stream.write_all(&h2_frame(SETTINGS, 0, 0, &[])).await?;
            stream.read_exact(&mut [0; 24]).await?; // The preface.
            loop {
                let mut head = [0; 9];
                stream.read_exact(&mut head).await?;
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                stream.read_exact(&mut vec![0; length as usize]).await?;
                if head[3] == HEADERS {
                    stream.write_all(&answer).await?;
                    stream.shutdown().await?;
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                    return Ok(());
                }
            }
        }
    })
    .await
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

fn h2_frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let head = [0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
    [&head, payload].concat()
}

fn reset(code: u8) -> Vec<u8> {
    h2_frame(RST_STREAM, 0, 1, &[0, 0, 0, code])
}

fn go_away(last_stream: u8, code: u8) -> Vec<u8> {
    h2_frame(GOAWAY, 0, 0, &[0, 0, 0, last_stream, 0, 0, 0, code])
}

// row 32
#[tokio::test]
async fn of_http2_errors_only_a_refused_stream_and_one_beyond_the_last_were_never_sent() {
    for (name, frame, sent) in [
        ("REFUSED_STREAM", reset(7), Sent::Never),
        ("INTERNAL_ERROR", reset(2), Sent::Maybe),
        ("CANCEL", reset(8), Sent::Maybe),
        ("GOAWAY before it", go_away(0, 0), Sent::Never),
        ("GOAWAY after it", go_away(1, 0), Sent::Maybe),
        ("GOAWAY in anger", go_away(0, 11), Sent::Maybe),
    ] {
        let endpoint = h2_answer([frame]).await;
        let error = h2_client(&endpoint).oneshot(post()).await.unwrap_err();
        assert_eq!(refusal(&error).kind(), Kind::Transport, "{name}");
        assert_eq!(refusal(&error).sent(), sent, "{name}: {error:?}");
        assert_eq!(class_of(&error), Class::Failure, "{name}");
    }
}

#[tokio::test]
async fn a_stream_that_is_refused_after_its_head_was_sent_all_the_same() {
    const END_HEADERS: u8 = 4;
    const STATUS_200: u8 = 0x88;
    let head = h2_frame(HEADERS, END_HEADERS, 1, &[STATUS_200]);
    let endpoint = h2_answer([head, reset(7)]).await;
    let response = h2_client(&endpoint).oneshot(get()).await.unwrap();
    let (mut body, mut reports) = track(response);
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(refusal(&error).sent(), Sent::Maybe, "{error:?}");
    assert_eq!(seen(&mut reports), [Some(Class::Failure), None]);
}

#[tokio::test]
async fn http2_names_the_endpoint_once_and_whatever_version_a_request_came_with() {
    let endpoint = serve(async |stream| {
        let echo = hyper::service::service_fn(async |request: Request<Incoming>| {
            let host = request.headers().get(HOST).cloned();
            Ok::<_, Infallible>(Response::new(format!("{} {host:?}", request.uri())))
        });
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), echo)
            .await
            .map_err(io::Error::other)
    })
    .await;
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        let mut request = get();
        *request.version_mut() = version;
        request
            .headers_mut()
            .insert(HOST, "evil.example".parse().unwrap());
        let response = h2_client(&endpoint).oneshot(request).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_2);
        let text = response.into_body().collect().await.unwrap().to_bytes();
        let expected = format!("http://{}/ None", endpoint.address());
        assert_eq!(text, expected.as_bytes());
    }
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
    response::<TrackedBody<Incoming, tower_mesh_core::Attempt>>();
    response::<TrackedBody<TrackedBody<Incoming, Report>, Report>>();
}
