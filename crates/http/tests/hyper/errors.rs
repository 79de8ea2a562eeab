//! What an error says: whether the request may have been sent, and whether the endpoint failed.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::client::conn::http1;
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use tower::{ServiceExt, service_fn};
use tower_mesh_core::{
    BoxError, Class, Kind, NewService, Outcome, Pushback, Refusal, Replay, Sent,
};
use tower_mesh_http::{Addressed, AddressedShared, Body, HttpReplay, TransportError};

use crate::support::{
    answer, class_of, client, get, h2_client, nobody, outcome, post, refusal, serve,
};

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
    let elsewhere = Refusal::remote(Kind::Transport, Sent::Maybe);
    let causes: [BoxError; 2] = ["disk on fire".into(), elsewhere.into()];
    for cause in causes {
        let message = cause.to_string();
        let frames: [Result<Frame<Bytes>, BoxError>; 2] = [Ok(Frame::data("a".into())), Err(cause)];
        let body = Body::new(StreamBody::new(tokio_stream::iter(frames)));
        let request = Request::put("/").body(body).unwrap();
        let error = client(&patient).oneshot(request).await.unwrap_err();
        assert!(refusal(&error).is_local());
        assert_eq!(refusal(&error).sent(), Sent::Maybe);
        assert_eq!(class_of(&error), Class::Neutral);
        assert!(error.to_string().contains(&message), "{error}");
    }
}
