//! Each server beneath each client of the mesh, over real sockets.
//!
//! | server, client | hyper | tonic | reqwest |
//! |---|---|---|---|
//! | axum | HTTP/1.1, HTTP/2: all | all, gRPC routes in axum's router | all |
//! | tonic | gRPC written by hand | all | gRPC written by hand |
//! | hyper | HTTP/1.1, HTTP/2: all | all, gRPC served by hyper | all |
//!
//! "All" is: a unary call; a body that streams both ways at once, with its trailers; a refusal in the protocol of the request,
//! whoever serves; a deadline that the server hears of, and that ends the call; a retry at another endpoint of what may be
//! sent again, and of nothing else. gRPC has besides a failure that stands in the trailers alone.
//!
//! By hand: a client that knows nothing of gRPC gets its answer through with the trailers, refusals are gRPC's where the
//! request is, and HTTP's where it is not, also from a tonic server.

mod grpc;
mod http;
mod servers;

use std::time::Duration;

use tower_mesh::{
    Mesh, MeshService, Policy,
    http::{Addressed, AddressedShared, HttpClient, HttpEndpoints, Protocol, ReqwestClient},
};

use self::servers::{Kind, Seen};
use crate::{calls, support::until};

/// Two servers of a kind and a mesh that calls them as `orders`.
async fn pair(kind: Kind) -> (Mesh, Seen) {
    let seen = Seen::default();
    let endpoints = vec![kind.start(&seen).await, kind.start(&seen).await];
    let mut policy = Policy::default();
    // Against hanging only: how fast the machine is shall not decide.
    policy.timeout = Duration::from_secs(60);
    policy.retry.per_try_timeout = None;
    (calls::mesh(endpoints, policy).await, seen)
}

fn hyper(mesh: &Mesh, protocol: Protocol) -> MeshService<Addressed<HttpClient>> {
    let connect = HttpEndpoints::new(|task| drop(tokio::spawn(task))).protocol(protocol);
    mesh.layer("orders").unwrap().over(connect)
}

fn reqwest(mesh: &Mesh, protocol: Protocol) -> MeshService<Addressed<ReqwestClient>> {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    let client = match protocol {
        Protocol::Http2 => client.http2_prior_knowledge(),
        _ => client,
    };
    let connect = AddressedShared::new(ReqwestClient::new(client.build().unwrap()));
    mesh.layer("orders").unwrap().over(connect)
}

/// Nothing is held of calls that are over, whoever ended them.
async fn at_rest(mesh: &Mesh, seen: &Seen) {
    until("all is given back", || {
        let service = &mesh.status().services[0];
        let in_flight: usize = service.endpoints.iter().map(|e| e.in_flight as usize).sum();
        service.limit.in_use == 0 && in_flight == 0 && seen.hanging() == 0
    })
    .await;
}

macro_rules! pairs {
    ($($name:ident: $scenes:expr;)*) => {$(
        #[tokio::test]
        async fn $name() {
            $scenes.await;
        }
    )*};
}

pairs! {
    axum_and_hyper: http::all(Kind::Axum, |mesh| hyper(mesh, Protocol::Http1), false);
    axum_and_hyper_over_http2: http::all(Kind::Axum, |mesh| hyper(mesh, Protocol::Http2), true);
    axum_and_reqwest: http::all(Kind::Axum, |mesh| reqwest(mesh, Protocol::Http1), false);
    axum_and_tonic: grpc::all(Kind::Axum);
    tonic_and_hyper: http::by_hand(|mesh| hyper(mesh, Protocol::Http2));
    tonic_and_reqwest: http::by_hand(|mesh| reqwest(mesh, Protocol::Http2));
    tonic_and_tonic: grpc::all(Kind::Tonic);
    hyper_and_hyper: http::all(Kind::Hyper, |mesh| hyper(mesh, Protocol::Http1), false);
    hyper_and_hyper_over_http2: http::all(Kind::Hyper, |mesh| hyper(mesh, Protocol::Http2), true);
    hyper_and_reqwest: http::all(Kind::Hyper, |mesh| reqwest(mesh, Protocol::Http1), false);
    hyper_and_tonic: grpc::all(Kind::Hyper);
}
