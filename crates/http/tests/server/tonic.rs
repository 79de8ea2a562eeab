//! A tonic server and clients of tonic.

use std::{
    convert::Infallible,
    future::{pending, ready},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use http::{Request, Response};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tonic::{
    Code, Status,
    body::Body,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::NamedService,
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tower::{Layer, Service, util::BoxCloneSyncService};
use tower_mesh_core::{BoxError, BoxFuture, Kind, Refusal};
use tower_mesh_http::server::{Inherited, ServerLayer};

/// What a generated service is to tonic: a name, and a service. Its methods do as they are called.
#[derive(Clone)]
struct Orders;

impl NamedService for Orders {
    const NAME: &'static str = "shop.Orders";
}

impl Service<Request<Body>> for Orders {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request
            .uri()
            .path()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        Box::pin(async move {
            match &*method {
                "Hang" => pending().await,
                "Boom" => panic!("SECRET"),
                _ => {}
            }
            let left = Inherited::left_here().map_or(0, |left| left.as_millis());
            Ok(Status::not_found(format!("{left}")).into_http())
        })
    }
}

async fn serve<L>(layer: L) -> Channel
where
    L: Layer<tonic::service::Routes> + Clone + Send + Sync + 'static,
    L::Service:
        Service<Request<Body>, Response = Answer, Error = Infallible> + Clone + Send + 'static,
    <L::Service as Service<Request<Body>>>::Future: Send,
{
    let server = Channel::from_shared(format!("http://{}", listen(layer)));
    server.unwrap().connect().await.unwrap()
}

type Answer = Response<tower_mesh_http::server::ServerBody<Body>>;

fn listen<L>(layer: L) -> SocketAddr
where
    L: Layer<tonic::service::Routes> + Clone + Send + Sync + 'static,
    L::Service:
        Service<Request<Body>, Response = Answer, Error = Infallible> + Clone + Send + 'static,
    <L::Service as Service<Request<Body>>>::Future: Send,
{
    let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = incoming.local_addr().unwrap();
    tokio::spawn(async move {
        let server = Server::builder().layer(layer).add_service(Orders);
        server.serve_with_incoming(incoming).await.unwrap();
    });
    address
}

/// Messages as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

async fn call(
    channel: &Channel,
    method: &'static str,
    timeout: Option<Duration>,
    metadata: &[(&'static str, &'static str)],
) -> Status {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(Bytes::new());
    for (name, value) in metadata {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    let path = http::uri::PathAndQuery::try_from(format!("/shop.Orders/{method}")).unwrap();
    client
        .unary(request, path, Raw)
        .await
        .map(|answer: tonic::Response<Bytes>| answer.into_inner())
        .unwrap_err()
}

#[tokio::test]
async fn tonic_serves_under_the_layer_each_request_within_its_deadline() {
    let layer = ServerLayer::new();
    let server = serve(layer.clone()).await;

    let plain = call(&server, "Get", None, &[]).await;
    assert_eq!((plain.code(), plain.message()), (Code::NotFound, "0"));
    let timed = call(&server, "Get", Some(Duration::from_secs(60)), &[]).await;
    let left: u64 = timed.message().parse().unwrap();
    assert!((50_000..=60_000).contains(&left), "{left}");

    let panicked = call(&server, "Boom", None, &[]).await;
    assert_eq!(panicked.code(), Code::Internal);
    assert!(
        panicked.message().starts_with("internal (id "),
        "{panicked}"
    );

    for timeout in ["-1m", "1000000000000000000m", "junk"] {
        let refused = call(&server, "Hang", None, &[("grpc-timeout", timeout)]).await;
        assert_eq!(
            refused.code(),
            Code::InvalidArgument,
            "{timeout}: {refused}"
        );
        let said = refused.message();
        assert!(said.starts_with("invalid_timeout (id "), "{refused}");
    }
    assert_eq!(layer.counts().panicked, 1);
}

// tonic's own client and server end a call at its deadline, too: only what has passed before it comes is surely ours.
#[tokio::test]
async fn a_deadline_that_has_passed_is_a_status_in_the_head() {
    let address = listen(ServerLayer::new());
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let request = Request::post(format!("http://{address}/shop.Orders/Hang"))
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "0m")
        .body(tower_mesh_http::Body::empty())
        .unwrap();
    let response = client.request(request).await.unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(
        status.message().starts_with("deadline_exceeded (id "),
        "{status}"
    );
}

#[tokio::test]
async fn the_health_that_tonics_own_client_asks_for_is_that_of_the_process() {
    let ready = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&ready);
    let layer = ServerLayer::new().ready_unless(move || match seen.load(Ordering::SeqCst) {
        true => Vec::new(),
        false => vec!["draining"],
    });
    let mut health = HealthClient::new(serve(layer).await);
    for (up, status) in [
        (true, ServingStatus::Serving),
        (false, ServingStatus::NotServing),
    ] {
        ready.store(up, Ordering::SeqCst);
        for service in ["", "shop.Orders"] {
            let question = HealthCheckRequest {
                service: service.to_owned(),
            };
            let answer = health.check(question).await.unwrap().into_inner();
            assert_eq!(answer.status(), status, "{service:?}");
        }
    }
}

#[tokio::test]
async fn tonics_own_client_watches_the_health_until_the_process_is_on_its_way_out() {
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&reasons);
    let layer = ServerLayer::new()
        .ready_unless(move || seen.lock().unwrap().clone())
        .grpc_services(["shop.Orders"]);
    let mut health = HealthClient::new(serve(layer).await);
    let watch = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    let other = health.check(watch("shop.Carts")).await.unwrap_err();
    assert_eq!(other.code(), Code::NotFound);
    let other = health.watch(watch("shop.Carts")).await.unwrap();
    let other = other.into_inner().message().await.unwrap().unwrap();
    assert_eq!(other.status(), ServingStatus::ServiceUnknown);

    let answer = health.watch(watch("shop.Orders")).await.unwrap();
    let mut stream = answer.into_inner();
    for (reason, status) in [
        (None, ServingStatus::Serving),
        (Some("component"), ServingStatus::NotServing),
        (None, ServingStatus::Serving),
        (Some("draining"), ServingStatus::NotServing),
    ] {
        *reasons.lock().unwrap() = reason.into_iter().collect();
        let said = stream.message().await.unwrap().unwrap();
        assert_eq!(said.status(), status, "{reason:?}");
    }
    let end = stream.message().await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
}

/// A layer beneath that refuses: under tonic alone its error would reset the stream.
#[derive(Clone)]
struct Full;

impl<S> Layer<S> for Full {
    type Service = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

    fn layer(&self, _: S) -> Self::Service {
        BoxCloneSyncService::new(tower::service_fn(|_: Request<Body>| {
            let full = Refusal::local(Kind::Overloaded).with_context("SECRET");
            ready(Err(full
                .with_retry_after(Some(Duration::from_millis(300)))
                .into()))
        }))
    }
}

#[tokio::test]
async fn an_error_of_a_layer_beneath_is_a_status_with_pushback_and_no_reset() {
    let server = serve(
        tower::ServiceBuilder::new()
            .layer(ServerLayer::new())
            .layer(Full)
            .into_inner(),
    )
    .await;
    let refused = call(&server, "Get", None, &[]).await;
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        refused.message().starts_with("overloaded (id "),
        "{refused}"
    );
    assert_eq!(
        refused.metadata().get("grpc-retry-pushback-ms").unwrap(),
        "300"
    );
    #[cfg(feature = "grpc")]
    {
        use tonic_types::StatusExt;
        let details = refused.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((&*info.reason, &*info.domain), ("OVERLOADED", "tower-mesh"));
        assert!(refused.message().contains(&info.metadata["id"]));
        let retry = details.retry_info().unwrap().retry_delay;
        assert_eq!(retry, Some(Duration::from_millis(300)));
        assert!(!format!("{refused:?}").contains("SECRET"));
    }
}
