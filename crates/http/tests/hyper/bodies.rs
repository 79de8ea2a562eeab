//! When a body has ended, and what its end says.

use http::Method;
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_mesh_core::{Class, Kind, Outcome, Sent, Verdict};

use crate::support::{SUCCESS, answer, client, get, outcome, refusal, seen, track};

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
