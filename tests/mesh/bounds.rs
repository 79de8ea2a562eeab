//! What axum, tonic, hyper-util and reqwest ask of a layer and of a service, as their sources say it. That this compiles is
//! the test.

use std::{convert::Infallible, hash::Hash};

use axum::{extract::Request as AxumRequest, response::IntoResponse, routing::Route};
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::Body as HttpBody;
use hyper::rt;
use hyper_util::client::legacy::{Client, connect::Connection};
use tower::{BoxError, Layer, Service};
use tower_mesh::{
    Body, GrpcService, Mesh, MeshClient, MeshLayer, MeshServerLayer, MeshService,
    breaker::BreakerLayer,
    http::{Addressed, HttpClient, HttpEndpoints, ReqwestClient},
    limit::{BulkheadLayer, DeadlineLayer},
};

/// `axum::Router::layer`, 0.8.
fn axum_layer<L>()
where
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<AxumRequest> + Clone + Send + Sync + 'static,
    <L::Service as Service<AxumRequest>>::Response: IntoResponse + 'static,
    <L::Service as Service<AxumRequest>>::Error: Into<Infallible> + 'static,
    <L::Service as Service<AxumRequest>>::Future: Send + 'static,
{
}

/// `axum::Router::route_service` and `fallback_service`, 0.8.
fn axum_route_service<T>()
where
    T: Service<AxumRequest, Error = Infallible> + Clone + Send + Sync + 'static,
    T::Response: IntoResponse,
    T::Future: Send + 'static,
{
}

/// `axum::serve`, 0.8.
fn axum_serve<S>()
where
    S: Service<AxumRequest, Response = axum::response::Response, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
}

/// `Server::layer(..).serve(..)`, tonic 0.14.
fn tonic_server_layer<L, RB>()
where
    L: Layer<tonic::service::Routes> + Clone,
    L::Service:
        Service<Request<tonic::body::Body>, Response = Response<RB>> + Clone + Send + 'static,
    <L::Service as Service<Request<tonic::body::Body>>>::Future: Send,
    <L::Service as Service<Request<tonic::body::Body>>>::Error: Into<BoxError> + Send + 'static,
    RB: HttpBody<Data = Bytes> + Send + 'static,
    RB::Error: Into<BoxError>,
{
}

/// `Server::add_service`, tonic 0.14.
fn tonic_add_service<S>()
where
    S: Service<Request<tonic::body::Body>, Error = Infallible>
        + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
}

/// What a generated client of tonic 0.14 takes; cloned by all who use one.
fn tonic_client<T, RB>()
where
    T: tonic::client::GrpcService<tonic::body::Body, ResponseBody = RB>
        + Clone
        + Send
        + Sync
        + 'static,
    T::Error: Into<BoxError>,
    T::Future: Send + 'static,
    RB: HttpBody<Data = Bytes> + Send + 'static,
    RB::Error: Into<BoxError> + Send,
{
}

/// The key of `Channel::balance_channel`, tonic 0.14.
fn tonic_key<K: Hash + Eq + Send + Clone + 'static>() {}

/// The body and the connector of hyper-util's `legacy::Client`.
fn hyper_util_client<C, B>(_: &Client<C, B>)
where
    B: HttpBody + Send + 'static + Unpin,
    B::Data: Send,
    B::Error: Into<BoxError>,
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: rt::Read + rt::Write + Connection + Unpin + Send + 'static,
    C::Error: Into<BoxError>,
    C::Future: Unpin + Send + 'static,
{
}

/// What stands where hyper-util's client or reqwest's stood: a service of requests that is cloned and shared.
fn client<S, B>()
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError> + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
}

/// What may be an endpoint's service.
fn endpoint<S: Clone + Send + Sync + 'static>()
where
    MeshService<S>: Service<Request<Body>, Error = tower_mesh::Error>,
{
}

type Body1<S> = <S as tonic::client::GrpcService<tonic::body::Body>>::ResponseBody;
type ResponseOf<S> = <S as Service<Request<Body>>>::Response;

trait IsResponse {
    type Body;
}

impl<B> IsResponse for Response<B> {
    type Body = B;
}

type BodyOf<S> = <ResponseOf<S> as IsResponse>::Body;

#[test]
fn everything_fits_where_its_users_put_it() {
    axum_layer::<MeshServerLayer>();
    type Served<I> = <MeshServerLayer as Layer<I>>::Service;
    axum_route_service::<Served<Route>>();
    axum_route_service::<axum::Router>();
    axum_serve::<axum::Router>();
    type Answered =
        <Served<tonic::service::Routes> as Service<Request<tonic::body::Body>>>::Response;
    tonic_server_layer::<MeshServerLayer, <Answered as IsResponse>::Body>();
    tonic_add_service::<
        tonic_health::pb::health_server::HealthServer<tonic_health::server::HealthService>,
    >();

    tonic_client::<GrpcService, Body1<GrpcService>>();
    tonic_client::<GrpcService<Addressed<HttpClient>>, Body1<GrpcService>>();
    tonic_key::<tower_mesh::Endpoint>();
    client::<MeshService, BodyOf<MeshService>>();
    client::<MeshService<Addressed<ReqwestClient>>, BodyOf<MeshService<Addressed<ReqwestClient>>>>(
    );
    client::<MeshClient, BodyOf<MeshClient>>();
    endpoint::<Addressed<Client<hyper_util::client::legacy::connect::HttpConnector, Body>>>();
    endpoint::<Addressed<ReqwestClient>>();

    fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<Mesh>();
    shared::<MeshLayer>();
    shared::<HttpEndpoints>();
    shared::<ReqwestClient>();

    let executor = hyper_util::rt::TokioExecutor::new();
    hyper_util_client(&Client::builder(executor).build_http::<Body>());
}

#[test]
fn layers_that_know_nothing_of_requests_fit_round_reqwests_connections() {
    // Its bounds have names that nobody else can write; `connector_layer` itself is the assertion.
    let client = reqwest::Client::builder()
        .connector_layer(DeadlineLayer::new(std::time::Duration::from_secs(1)))
        .connector_layer(BulkheadLayer::new(std::num::NonZeroUsize::MIN))
        .connector_layer(BreakerLayer::default())
        .build();
    assert!(client.is_ok());
}
