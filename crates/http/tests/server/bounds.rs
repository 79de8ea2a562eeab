//! What axum and tonic ask of a layer and of a service, as their sources say it.

use std::convert::Infallible;

use axum::{extract::Request, response::IntoResponse, routing::Route};
use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use tower::{BoxError, Layer, Service, util::BoxCloneSyncService};
use tower_mesh_http::server::ServerLayer;

/// `Router::layer` and `Router::route_service` of axum 0.8.
fn axum_takes<L>(_: &L)
where
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request>>::Response: IntoResponse + 'static,
    <L::Service as Service<Request>>::Future: Send + 'static,
{
}

/// `Server::layer(..).serve` of tonic 0.14.
fn tonic_takes<L, RB>(_: &L)
where
    L: Layer<tonic::service::Routes> + Clone,
    L::Service: Service<http::Request<tonic::body::Body>, Response = http::Response<RB>>
        + Clone
        + Send
        + 'static,
    <L::Service as Service<http::Request<tonic::body::Body>>>::Future: Send,
    <L::Service as Service<http::Request<tonic::body::Body>>>::Error:
        Into<BoxError> + Send + 'static,
    RB: Body<Data = Bytes> + Send + 'static,
    RB::Error: Into<BoxError>,
{
}

/// A server over hyper alone.
fn hyper_takes<L>(_: &L)
where
    L: Layer<
            BoxCloneSyncService<
                http::Request<Incoming>,
                http::Response<tower_mesh_http::Body>,
                BoxError,
            >,
        > + Clone
        + Send
        + Sync
        + 'static,
    L::Service:
        Service<http::Request<Incoming>, Error = Infallible> + Clone + Send + Sync + 'static,
    <L::Service as Service<http::Request<Incoming>>>::Future: Send + 'static,
{
}

#[test]
fn one_layer_fits_axum_tonic_and_hyper() {
    let layer = ServerLayer::new();
    axum_takes(&layer);
    tonic_takes(&layer);
    hyper_takes(&layer);
}
