//! HTTP/2, mostly spoken by hand.

use std::{convert::Infallible, io};

use http::{Request, Response, Version, header::HOST};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;
use tower_mesh_core::{Class, Endpoint, Kind, Sent};

use crate::support::{class_of, get, h2_client, post, refusal, seen, serve, track};

/// Speaks as much HTTP/2 as it takes to answer the first request with `frames`, and reads until the client closes.
async fn h2_answer(frames: impl IntoIterator<Item = Vec<u8>>) -> Endpoint {
    h2_answer_to(HEADERS, frames).await
}

/// Answers as soon as a frame of this `kind` has come.
async fn h2_answer_to(kind: u8, frames: impl IntoIterator<Item = Vec<u8>>) -> Endpoint {
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
                if head[3] == kind {
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

const DATA: u8 = 0;
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

/// Refuses the first stream as one that it has not looked at, when some of the request's body is already there.
pub(crate) async fn refusing_late() -> Endpoint {
    h2_answer_to(DATA, [reset(7)]).await
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
