//! What has to hold for a client of HTTP.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::{BoxError, Service};
use tower_mesh::{Body, Mesh, MeshService, core};

use super::{
    at_rest, pair,
    servers::{Kind, Seen},
};

/// All scenes; `trailers` is whether the protocol has some that nobody has to ask for.
pub async fn all<S, B>(kind: Kind, client: impl Fn(&Mesh) -> MeshService<S>, trailers: bool)
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let (mesh, seen) = pair(kind).await;
    let orders = client(&mesh);
    unary(&orders).await;
    streamed(&orders, trailers).await;
    refused_as_http(&orders).await;
    refused_as_grpc(&orders).await;
    within_a_deadline(&orders).await;
    tried_again(&mesh, &orders).await;
    at_rest(&mesh, &seen).await;
}

fn post(path: &str, body: &'static str) -> Request<Body> {
    Request::post(path).body(Body::from(body)).unwrap()
}

async fn text<B>(response: Response<B>) -> (u16, String)
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(Into::into);
    let body = body.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

macro_rules! scene {
    ($(#[$doc:meta])* $name:ident($orders:ident $(, $arg:ident: $ty:ty)*) $body:block) => {
        $(#[$doc])*
        async fn $name<S, B>($orders: &MeshService<S> $(, $arg: $ty)*)
        where
            S: Service<Request<Body>, Response = Response<B>> + Clone,
            S::Error: Into<BoxError>,
            B: http_body::Body<Data = Bytes> + Unpin,
            B::Error: Into<BoxError>,
        $body
    };
}

scene!(unary(orders) {
    let answer = orders.send(post("/echo", "two books")).await.unwrap();
    assert_eq!(text(answer).await, (200, "two books".to_owned()));
});

scene!(
    /// What was said is answered before the next is said, so nobody has waited for the whole of it.
    streamed(orders, trailers: bool) {
        let (say, said) = mpsc::unbounded_channel();
        let body = UnboundedReceiverStream::new(said).map(Ok::<_, BoxError>);
        let request = Request::post("/echo").body(Body::new(StreamBody::new(body))).unwrap();
        say.send(Frame::data(Bytes::from("one"))).unwrap();
        let mut answer = orders.send(request).await.unwrap().into_body();
        for word in ["one", "two", "three"] {
            if word != "one" {
                say.send(Frame::data(Bytes::from(word))).unwrap();
            }
            let frame = answer.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), word);
        }
        let sum = HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from(3))]);
        if trailers {
            say.send(Frame::trailers(sum.clone())).unwrap();
        }
        drop(say);
        let end = answer.frame().await.map(|frame| frame.unwrap().into_trailers().unwrap());
        assert_eq!(end, trailers.then_some(sum));
        assert!(answer.is_end_stream() || answer.frame().await.is_none());
    }
);

scene!(refused_as_http(orders) {
    let mut request = post("/echo", "too late");
    let none_left = HeaderValue::from_static("0");
    request.headers_mut().insert("x-request-timeout-ms", none_left);
    let answer = orders.send(request).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let (status, problem) = text(answer).await;
    assert_eq!(status, 504);
    assert!(problem.contains("deadline_exceeded"), "{problem}");
});

scene!(refused_as_grpc(orders) {
    let mut request = post("/shop.Orders/Echo", "");
    for (name, value) in [("content-type", "application/grpc"), ("grpc-timeout", "0n")] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let answer = orders.send(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["grpc-status"]), (200, &HeaderValue::from(4)));
});

scene!(
    /// What is left goes along, and is less than it was; and when it is over so is the call.
    within_a_deadline(orders) {
        let patient = orders.with_timeout(Duration::from_secs(60));
        let (_, left) = text(patient.send(post("/left", "")).await.unwrap()).await;
        assert!((1..=60_000).contains(&left.parse::<u64>().unwrap()), "{left}");
        let hasty = orders.with_timeout(Duration::from_millis(100));
        let error = hasty.send(post("/hang", "")).await.err().unwrap();
        assert_eq!(error.kind(), Some(core::Kind::DeadlineExceeded), "{error}");
    }
);

async fn tried_again<S, B>(mesh: &Mesh, orders: &MeshService<S>)
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let before = mesh.status().services[0].retries.made;
    let answer = orders.get("/busy").await.unwrap();
    assert_eq!(text(answer).await, (200, "not any more".to_owned()));
    assert_eq!(mesh.status().services[0].retries.made - before, 1);
    let answer = orders.send(post("/busy", "once")).await.unwrap();
    assert_eq!(text(answer).await, (503, "busy".to_owned()));
    assert_eq!(mesh.status().services[0].retries.made - before, 1);
}

/// A tonic server, and a client that knows nothing of gRPC.
pub async fn by_hand<S, B>(client: impl Fn(&Mesh) -> MeshService<S>)
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let (mesh, seen): (Mesh, Seen) = pair(Kind::Tonic).await;
    let orders = client(&mesh);
    let mut request = post("/shop.Orders/Echo", "\0\0\0\0\x09two books");
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    let answer = orders.send(request).await.unwrap();
    let answer = answer.into_body().collect().await;
    let answer = answer.unwrap();
    assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(answer.to_bytes(), "\0\0\0\0\x09two books");
    refused_as_grpc(&orders).await;
    refused_as_http(&orders).await;
    at_rest(&mesh, &seen).await;
}
