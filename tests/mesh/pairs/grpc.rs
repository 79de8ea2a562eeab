//! What has to hold for a client of tonic's.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request, Status, client::Grpc};
use tower_mesh::{GrpcService, Mesh, http::Idempotent};

use super::{
    at_rest, pair,
    servers::{Kind, Raw},
};

pub async fn all(kind: Kind) {
    let (mesh, seen) = pair(kind).await;
    let orders = mesh.grpc("orders").unwrap();
    assert_eq!(
        unary(&orders, "Echo", message("two books")).await.unwrap(),
        "two books"
    );
    streamed(&orders).await;
    refused(&orders).await;
    within_a_deadline(&orders).await;
    tried_again(&mesh, &orders).await;
    failed_in_the_trailers(&mesh, &orders).await;
    at_rest(&mesh, &seen).await;
}

fn message(text: &'static str) -> Request<Bytes> {
    Request::new(text.into())
}

fn path(method: &str) -> PathAndQuery {
    format!("/shop.Orders/{method}").parse().unwrap()
}

async fn unary(
    orders: &GrpcService,
    method: &str,
    message: Request<Bytes>,
) -> Result<Bytes, Status> {
    let mut orders = Grpc::new(orders.clone());
    orders.ready().await.unwrap();
    let answer = orders.unary(message, path(method), Raw).await?;
    Ok(answer.into_inner())
}

/// What was said is answered before the next is said, so nobody has waited for the whole of it.
async fn streamed(orders: &GrpcService) {
    let (say, said) = mpsc::unbounded_channel();
    say.send(Bytes::from("one")).unwrap();
    let mut orders = Grpc::new(orders.clone());
    orders.ready().await.unwrap();
    let messages = Request::new(UnboundedReceiverStream::new(said));
    let answer = orders.streaming(messages, path("Stream"), Raw).await;
    let mut answer: tonic::Streaming<Bytes> = answer.unwrap().into_inner();
    for word in ["one", "two", "three"] {
        if word != "one" {
            say.send(Bytes::from(word)).unwrap();
        }
        assert_eq!(answer.message().await.unwrap().unwrap(), word);
    }
    drop(say);
    assert_eq!(
        answer.message().await.unwrap(),
        None,
        "and its status is good"
    );
}

async fn refused(orders: &GrpcService) {
    let mut late = message("too late");
    late.set_timeout(Duration::ZERO);
    let status = unary(orders, "Echo", late).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(
        status.message().starts_with("deadline_exceeded (id "),
        "{status}"
    );
}

/// What is left goes along, and is less than it was; and when it is over so is the call.
async fn within_a_deadline(orders: &GrpcService) {
    let patient = orders.with_timeout(Duration::from_secs(60));
    let left = unary(&patient, "Left", message("")).await.unwrap();
    let left: u64 = std::str::from_utf8(&left).unwrap().parse().unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
    let hasty = orders.with_timeout(Duration::from_millis(100));
    let status = unary(&hasty, "Hang", message("")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

async fn tried_again(mesh: &Mesh, orders: &GrpcService) {
    let before = mesh.status().services[0].retries.made;
    let mut again = message("again");
    again.extensions_mut().insert(Idempotent::Yes);
    assert_eq!(unary(orders, "Busy", again).await.unwrap(), "not any more");
    assert_eq!(mesh.status().services[0].retries.made - before, 1);
    let status = unary(orders, "Busy", message("once")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "busy")
    );
    assert_eq!(mesh.status().services[0].retries.made - before, 1);
}

// scenario 11
async fn failed_in_the_trailers(mesh: &Mesh, orders: &GrpcService) {
    let failures = || {
        let endpoints = &mesh.status().services[0].endpoints;
        endpoints
            .iter()
            .map(|endpoint| endpoint.failures)
            .sum::<u64>()
    };
    let before = failures();
    let mut orders = Grpc::new(orders.clone());
    orders.ready().await.unwrap();
    let answer = orders
        .server_streaming(message(""), path("Late"), Raw)
        .await;
    let mut answer: tonic::Streaming<Bytes> = answer.unwrap().into_inner();
    assert_eq!(answer.message().await.unwrap().unwrap(), "half of it");
    assert_eq!(failures(), before, "nothing is known yet");
    let status = answer.message().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "late")
    );
    assert_eq!(failures(), before + 1);
}
