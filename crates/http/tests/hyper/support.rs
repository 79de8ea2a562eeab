//! Servers that misbehave, clients for them, and what their errors and bodies say.

use std::{future::Future, io};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tower::load::TrackCompletion;
use tower_mesh_core::{
    BoxError, Class, Classify, Endpoint, Finish, NewService, Outcome, Refusal, Verdict,
};
use tower_mesh_http::{
    Addressed, Body, CompleteOnBody, HttpClassify, HttpClient, HttpEndpoints, IdleTimeout,
    Protocol, TrackedBody,
};

pub(crate) type Client = Addressed<HttpClient>;

/// Listens, and gives each connection to `handle`, one after the other.
pub(crate) async fn serve<F>(mut handle: impl FnMut(TcpStream) -> F + Send + 'static) -> Endpoint
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
pub(crate) async fn answer(response: &'static str) -> Endpoint {
    serve(async move |mut stream| {
        read_head(&mut stream).await?;
        stream.write_all(response.as_bytes()).await
    })
    .await
}

pub(crate) async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A place where nobody listens.
pub(crate) async fn nobody() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Endpoint::new(listener.local_addr().unwrap())
}

pub(crate) fn endpoints() -> HttpEndpoints {
    HttpEndpoints::new(|task| drop(tokio::spawn(task)))
}

pub(crate) fn client(endpoint: &Endpoint) -> Client {
    endpoints().new_service(endpoint)
}

pub(crate) fn h2_client(endpoint: &Endpoint) -> Client {
    endpoints().protocol(Protocol::Http2).new_service(endpoint)
}

pub(crate) fn get() -> Request<Body> {
    Request::get("/").body(Body::empty()).unwrap()
}

pub(crate) fn post() -> Request<Body> {
    Request::post("/").body("payload".into()).unwrap()
}

pub(crate) fn refusal(error: &BoxError) -> &Refusal {
    Refusal::of(&**error).expect("hyper's errors are explained")
}

pub(crate) fn outcome<B: http_body::Body>(result: Result<&Response<B>, &BoxError>) -> Verdict {
    HttpClassify::new().classify(result.map_err(|error| &**error))
}

pub(crate) fn class_of(error: &BoxError) -> Class {
    match outcome(Err::<&Response<Body>, _>(error)) {
        Verdict::Done(outcome) => {
            assert_eq!(outcome.sent(), refusal(error).sent());
            outcome.class()
        }
        Verdict::Deferred => panic!("an error is known at once"),
    }
}

#[derive(Debug)]
pub(crate) struct Report(mpsc::UnboundedSender<Option<Class>>);

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

pub(crate) type Reports = mpsc::UnboundedReceiver<Option<Class>>;

pub(crate) fn track(
    response: Response<IdleTimeout<Incoming>>,
) -> (TrackedBody<IdleTimeout<Incoming>, Report>, Reports) {
    let (report, reports) = mpsc::unbounded_channel();
    let response = CompleteOnBody::new().track_completion(Report(report), response);
    (response.into_body(), reports)
}

pub(crate) fn seen(reports: &mut Reports) -> Vec<Option<Class>> {
    std::iter::from_fn(|| reports.try_recv().ok()).collect()
}

pub(crate) const SUCCESS: [Option<Class>; 2] = [Some(Class::Success), None];
