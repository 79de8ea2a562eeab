//! Endpoints that misbehave, and a mesh that calls them.

use std::{future::Future, io, num::NonZeroU32, time::Duration};

use axum::{body::Body as AxumBody, response::Response};
use futures_util::StreamExt;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower_mesh::{
    Body, Endpoint, Mesh, MeshService, Policy, core,
    http::{Addressed, HttpClient, HttpEndpoints, Protocol},
};

use super::Made;
use crate::{
    calls,
    support::{Server, until},
};

/// Gives each connection to `handle`; it ends with the runtime of its test.
async fn raw<F>(handle: impl Fn(TcpStream) -> F + Send + 'static) -> Endpoint
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handle(stream));
        }
    });
    endpoint
}

async fn read_head(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(())
}

/// Says `text` once it has read a head, and then resets the connection when it has been told to, or at once.
async fn resets(text: &'static str, when: Option<&'static tokio::sync::Notify>) -> Endpoint {
    raw(move |mut stream| async move {
        read_head(&mut stream).await?;
        stream.write_all(text.as_bytes()).await?;
        if let Some(when) = when {
            when.notified().await;
        }
        stream.set_zero_linger()
    })
    .await
}

/// A mesh that calls `endpoint` once a call, and is in no hurry.
async fn mesh(endpoint: Endpoint) -> Mesh {
    let mut policy = Policy::default();
    policy.timeout = Duration::from_secs(60);
    policy.retry.attempts = NonZeroU32::MIN;
    policy.retry.per_try_timeout = None;
    calls::mesh(vec![endpoint], policy).await
}

/// Nothing is held any more, and the endpoint has failed so often.
async fn released(mesh: &Mesh, failures: u64) {
    until("permit and load are back", || {
        let service = &mesh.status().services[0];
        service.limit.in_use == 0 && service.endpoints[0].in_flight == 0
    })
    .await;
    assert_eq!(mesh.status().services[0].endpoints[0].failures, failures);
}

fn post(body: Body) -> Request<Body> {
    Request::post("/").body(body).unwrap()
}

#[tokio::test]
async fn a_server_that_closes_its_half_before_it_answers_has_failed() {
    let half_closed = raw(|mut stream| async move {
        read_head(&mut stream).await?;
        stream.shutdown().await?;
        // The other half stays open: whoever waits for a byte waits for ever.
        std::future::pending().await
    })
    .await;
    let mesh = mesh(half_closed).await;
    let orders = mesh.service("orders").unwrap();
    let error = orders.send(post("one".into())).await.err().unwrap();
    assert_eq!(error.kind(), Some(core::Kind::Transport), "{error}");
    released(&mesh, 1).await;
}

#[tokio::test]
async fn a_connection_that_is_reset_in_the_middle_of_the_head_is_a_failure() {
    let mesh = mesh(resets("HTTP/1.1 200 OK\r\ncontent-le", None).await).await;
    let orders = mesh.service("orders").unwrap();
    let error = orders.send(post("one".into())).await.err().unwrap();
    assert_eq!(error.kind(), Some(core::Kind::Transport), "{error}");
    released(&mesh, 1).await;
}

#[tokio::test]
async fn a_connection_that_is_reset_in_the_middle_of_the_body_is_a_failure_and_what_came_is_there()
{
    static NOW: tokio::sync::Notify = tokio::sync::Notify::const_new();
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    let mesh = mesh(resets(half, Some(&NOW)).await).await;
    let mut body = mesh
        .service("orders")
        .unwrap()
        .get("/")
        .await
        .unwrap()
        .into_body();
    let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(data, "half");
    assert_eq!(mesh.status().services[0].limit.in_use, 1, "it is not over");
    NOW.notify_one();
    assert!(body.frame().await.unwrap().is_err());
    released(&mesh, 1).await;
}

#[tokio::test]
async fn a_stream_of_http2_that_is_reset_in_the_middle_is_a_failure_and_what_came_is_there() {
    let (cut, is_cut) = tokio::sync::watch::channel(false);
    let server = Server::start(move |_| {
        let mut is_cut = is_cut.clone();
        async move {
            let half = futures_util::stream::once(async { Ok("half") });
            let rest = futures_util::stream::once(async move {
                is_cut.wait_for(|cut| *cut).await.unwrap();
                Err(io::Error::other("cut"))
            });
            Response::new(AxumBody::from_stream(half.chain(rest)))
        }
    })
    .await;
    let mesh = mesh(server.endpoint()).await;
    let orders = over(&mesh, |connect| connect.protocol(Protocol::Http2));
    let mut body = orders.get("/").await.unwrap().into_body();
    let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(data, "half");
    cut.send(true).unwrap();
    assert!(body.frame().await.unwrap().is_err());
    released(&mesh, 1).await;
}

fn over(
    mesh: &Mesh,
    set: impl FnOnce(HttpEndpoints) -> HttpEndpoints,
) -> MeshService<Addressed<HttpClient>> {
    let connect = HttpEndpoints::new(|task| drop(tokio::spawn(task)));
    mesh.layer("orders").unwrap().over(set(connect))
}

// hyper keeps a connection that it cannot write to, and the body with it, until the system gives it up, which the mesh asks it
// to do after 20 s; what is the mesh's own is back at once.
#[tokio::test]
async fn what_a_server_does_not_read_is_not_made_and_the_deadline_ends_it() {
    let deaf = raw(|stream| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await;
    let (mesh, made) = (mesh(deaf).await, Made::default());
    let hasty = mesh
        .service("orders")
        .unwrap()
        .with_timeout(Duration::from_millis(300));
    let body = made.endless().map(|piece| piece.map(Frame::data));
    let error = hasty
        .send(post(Body::new(StreamBody::new(body))))
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), Some(core::Kind::DeadlineExceeded), "{error}");
    released(&mesh, 1).await;
    made.stands_still().await;
}

#[tokio::test]
async fn who_is_answered_before_the_upload_is_over_has_the_answer_and_makes_no_more() {
    let declines = raw(|mut stream| async move {
        read_head(&mut stream).await?;
        stream.read_u8().await?;
        let head = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\n413";
        stream.write_all(head).await?;
        std::future::pending().await
    })
    .await;
    let (mesh, made) = (mesh(declines).await, Made::default());
    let body = made.endless().map(|piece| piece.map(Frame::data));
    let request = post(Body::new(StreamBody::new(body)));
    let answer = mesh.service("orders").unwrap().send(request).await.unwrap();
    assert_eq!(answer.status(), 413);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "413");
    released(&mesh, 0).await;
    made.stands_still().await;
}

#[tokio::test]
async fn what_a_caller_does_not_read_is_not_made_and_holds_its_permit_until_it_is_dropped() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let made = Made::default();
        let server = Server::start({
            let made = made.clone();
            move |_| {
                let body = AxumBody::from_stream(made.endless());
                async move { Response::new(body) }
            }
        })
        .await;
        let mesh = mesh(server.endpoint()).await;
        let orders = over(&mesh, |connect| connect.protocol(protocol));
        let answer = orders.get("/").await.unwrap();
        made.stands_still().await;
        assert_eq!(mesh.status().services[0].limit.in_use, 1);
        drop(answer);
        released(&mesh, 0).await;
    }
}

// row 14
#[tokio::test]
async fn a_body_that_stands_still_for_too_long_is_a_failure_and_lets_go() {
    let stands_still = raw(|mut stream| async move {
        read_head(&mut stream).await?;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nh")
            .await?;
        std::future::pending().await
    })
    .await;
    let mesh = mesh(stands_still).await;
    let orders = over(&mesh, |connect| {
        connect.body_idle_timeout(Duration::from_millis(50))
    });
    let body = orders.get("/").await.unwrap().into_body();
    assert!(body.collect().await.is_err());
    released(&mesh, 1).await;
}
