//! A request's body that streams, sent again over another connection.

use std::{convert::Infallible, io};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::ServiceExt;
use tower_mesh_core::{BoxError, Endpoint, Replay, Sent};
use tower_mesh_http::{Body, HttpReplay};

use crate::{
    http2::refusing_late,
    support::{client, h2_client, read_head, refusal, serve},
};

type Send = mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>;

fn streaming(method: &str) -> (Send, Request<Body>) {
    let (send, frames) = mpsc::unbounded_channel();
    let body = Body::new(StreamBody::new(UnboundedReceiverStream::new(frames)));
    let request = Request::builder().method(method).uri("/").body(body);
    (send, request.unwrap())
}

fn say(send: &Send, text: &'static str) {
    send.send(Ok(Frame::data(text.into()))).unwrap();
}

fn trailers() -> HeaderMap {
    let sum = HeaderName::from_static("x-sum");
    HeaderMap::from_iter([(sum, HeaderValue::from_static("23"))])
}

/// Answers with the body of the request, and its trailers as headers.
async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    let mut response = Response::new(Full::new(body.to_bytes()));
    *response.headers_mut() = trailers;
    Ok(response)
}

async fn h1_echo() -> Endpoint {
    serve(async |stream| {
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), hyper::service::service_fn(echo))
            .await
            .map_err(io::Error::other)
    })
    .await
}

async fn h2_echo() -> Endpoint {
    serve(async |stream| {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), hyper::service::service_fn(echo))
            .await
            .map_err(io::Error::other)
    })
    .await
}

async fn text<B>(response: Response<B>) -> Bytes
where
    B: http_body::Body<Error: std::fmt::Debug>,
{
    response.into_body().collect().await.unwrap().to_bytes()
}

// row 32: why what is read of a stream is kept also if the request is not idempotent.
#[tokio::test]
async fn a_post_that_a_server_refuses_unseen_though_some_of_it_was_sent_goes_elsewhere_whole() {
    let (send, mut post) = streaming("POST");
    let replay = HttpReplay::new();
    let kept = replay.keep(&mut post).unwrap();
    say(&send, "a");
    let refusing = refusing_late().await;
    let error = h2_client(&refusing).oneshot(post).await.unwrap_err();
    assert_eq!(refusal(&error).sent(), Sent::Never);

    let again = replay.again(&kept).unwrap();
    say(&send, "b");
    send.send(Ok(Frame::trailers(trailers()))).unwrap();
    let response = h2_client(&h2_echo().await).oneshot(again).await.unwrap();
    assert_eq!(response.headers()["x-sum"], "23");
    assert_eq!(text(response).await, "ab");
}

#[tokio::test]
async fn the_connection_of_an_attempt_that_was_overtaken_closes_instead_of_waiting_for_ever() {
    let (closed, mut is_closed) = mpsc::unbounded_channel();
    let declining = serve(move |mut stream| {
        let closed = closed.clone();
        async move {
            read_head(&mut stream).await?;
            let head = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(head).await?;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await?;
            closed
                .send(String::from_utf8_lossy(&rest).into_owned())
                .unwrap();
            Ok(())
        }
    })
    .await;
    let (send, mut put) = streaming("PUT");
    let replay = HttpReplay::new();
    let kept = replay.keep(&mut put).unwrap();
    say(&send, "a");
    let first = client(&declining);
    let response = first.clone().oneshot(put).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(response);

    let again = replay.again(&kept).unwrap();
    let second = tokio::spawn(client(&h1_echo().await).oneshot(again));
    let rest = is_closed.recv().await.unwrap();
    assert_eq!(
        rest, "1\r\na\r\n",
        "no end, so that it is not taken for whole"
    );
    say(&send, "b");
    drop(send);
    assert_eq!(text(second.await.unwrap().unwrap()).await, "ab");
}

#[tokio::test]
async fn a_body_of_known_length_is_sent_again_with_its_length() {
    let (lengths, mut seen) = mpsc::unbounded_channel();
    let endpoint = serve(move |mut stream| {
        let lengths = lengths.clone();
        async move {
            let head = read_head(&mut stream).await?;
            lengths.send(head).unwrap();
            stream.read_exact(&mut [0; 5]).await?;
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
            stream.shutdown().await
        }
    })
    .await;
    let body = Body::new(Full::new(Bytes::from_static(b"hello")));
    let mut put = Request::put("/").body(body).unwrap();
    let replay = HttpReplay::new();
    let kept = replay.keep(&mut put).unwrap();
    let mut next = Some(put);
    for _ in 0..2 {
        let request = next.take().or_else(|| replay.again(&kept)).unwrap();
        let response = client(&endpoint).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        let head = seen.recv().await.unwrap();
        assert!(head.contains("content-length: 5\r\n"), "{head}");
    }
}
