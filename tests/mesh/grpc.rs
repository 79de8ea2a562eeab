//! Generated tonic clients over the mesh, and real tonic servers.

use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Request,
    transport::{Channel, Server},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tower::ServiceBuilder;
use tower_mesh::{
    Body, Endpoint, Error, GrpcService, Mesh, Policy,
    balance::Strategy,
    core::{Kind, Outcome, Ratio},
    http::{ClassifyLayer, Idempotent, Seen},
};

use crate::{
    calls::mesh,
    support::{dead_endpoint, until},
};

/// A real tonic server that knows how `orders` is.
async fn server() -> Endpoint {
    server_of("orders").await
}

async fn server_of(name: &str) -> Endpoint {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(listener.local_addr().unwrap());
    let (health, service) = tonic_health::server::health_reporter();
    health
        .set_service_status(name, tonic_health::ServingStatus::Serving)
        .await;
    let serve = Server::builder().add_service(service);
    tokio::spawn(serve.serve_with_incoming(TcpListenerStream::new(listener)));
    endpoint
}

fn client(mesh: &Mesh) -> HealthClient<GrpcService> {
    HealthClient::new(mesh.grpc("orders").unwrap())
}

fn asks(service: &str) -> Request<HealthCheckRequest> {
    Request::new(HealthCheckRequest {
        service: service.to_owned(),
    })
}

#[tokio::test]
async fn a_generated_client_takes_the_mesh_where_it_took_a_channel() {
    let mesh = mesh(
        vec![dead_endpoint().await, server().await],
        Policy::default(),
    )
    .await;
    let mut orders = client(&mesh);
    for _ in 0..20 {
        let answer = orders.check(asks("orders")).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    let status = mesh.status();
    assert!(
        status.services[0].retries.made > 0,
        "a dead endpoint costs no call: {status}"
    );
    // Its own status in an answer is the caller's, and no failure of the endpoint.
    let unknown = orders.check(asks("users")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    // A stream goes through as it comes.
    let mut watched = orders.watch(asks("orders")).await.unwrap().into_inner();
    let first = watched.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    drop(watched);
    until("nothing is held of a stream that is dropped", || {
        mesh.status().services[0].in_flight == 0
    })
    .await;
}

#[tokio::test]
async fn each_endpoint_may_have_a_channel_of_tonics_and_one_that_cannot_connect_costs_no_call() {
    let mesh = mesh(
        vec![dead_endpoint().await, server().await],
        Policy::default(),
    )
    .await;
    let channels = |endpoint: &Endpoint| {
        let uri = format!("http://{}", endpoint.address());
        ServiceBuilder::new()
            .map_request(|request: http::Request<Body>| request.map(tonic::body::Body::new))
            .service(Channel::from_shared(uri).unwrap().connect_lazy())
    };
    let orders = GrpcService::from(mesh.layer("orders").unwrap().over(channels));
    let mut orders = HealthClient::new(orders);
    for _ in 0..20 {
        let answer = orders.check(asks("orders")).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    let status = mesh.status();
    assert!(status.services[0].retries.made > 0, "{status}");
    let unknown = orders.check(asks("users")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn a_code_that_a_closure_takes_for_a_failure_is_asked_for_elsewhere() {
    let (forgetful, whole) = (server_of("users").await, server_of("orders").await);
    let mut policy = Policy::default();
    policy.balance = Strategy::RoundRobin;
    // So few calls earn no retry.
    policy.retry.budget = Ratio::ONE;
    let mesh = mesh(vec![forgetful, whole], policy).await;
    let lost = |call: &Seen<'_>| (call.grpc_status()? == "5").then_some(Outcome::failure());
    let orders = mesh.grpc_with("orders", ClassifyLayer::new(lost)).unwrap();
    let mut orders = HealthClient::new(orders);
    for _ in 0..2 {
        let mut question = asks("orders");
        question.extensions_mut().insert(Idempotent::Yes);
        let answer = orders.check(question).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    assert!(mesh.status().services[0].retries.made > 0);
}

#[tokio::test]
async fn what_the_mesh_refuses_is_a_status_with_the_meshs_error_in_its_chain() {
    let mesh = mesh(vec![], Policy::default()).await;
    let status = client(&mesh).check(asks("orders")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("lists none"), "{status}");
    let mut source = std::error::Error::source(&status);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<Error>() {
            assert_eq!(error.kind(), Some(Kind::NoEndpoint));
            return;
        }
        source = error.source();
    }
    panic!("the mesh's error is not in the chain of {status:?}");
}
