//! `MeshService` is a name for a composition: the same layers, stacked by hand from the public crates, do the same.

use std::{num::NonZeroUsize, time::Duration};

use http::{Method, Request};
use http_body_util::BodyExt;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_mesh::{
    Body, Endpoint, Policy,
    balance::BalanceLayer,
    breaker::BreakerLayer,
    core::{Kind, Layered, Refusal},
    discovery::{Discovery, Static},
    http::{CompleteOnBody, HttpClassify, HttpEndpoints, HttpReplay},
    limit::{BulkheadLayer, DeadlineLayer},
    retry::{Budget, RetryLayer},
};

use crate::{
    calls::mesh,
    support::{Server, dead_endpoint, name},
};

/// The stack of a service, by hand.
fn by_hand(
    endpoints: Vec<Endpoint>,
) -> impl Service<
    Request<Body>,
    Response = http::Response<impl http_body::Body<Data = bytes::Bytes, Error: std::fmt::Debug>>,
    Error = BoxError,
    Future: Send,
> + Clone {
    let orders = name("orders");
    let (discovery, driver) =
        Discovery::builder(Static::new().service(orders.clone(), endpoints)).build();
    tokio::spawn(driver);
    let connect = HttpEndpoints::new(|task| drop(tokio::spawn(task)));
    ServiceBuilder::new()
        .layer(DeadlineLayer::new(Duration::from_secs(10)))
        .layer(discovery.layer(&orders))
        .layer(
            BulkheadLayer::new(NonZeroUsize::new(1024).unwrap()).completion(CompleteOnBody::new()),
        )
        .layer(
            RetryLayer::new(Budget::default())
                .replay(HttpReplay::default())
                .classify(HttpClassify::default()),
        )
        .layer(
            BalanceLayer::new(discovery.endpoints(&orders))
                .classify(HttpClassify::default())
                .completion(CompleteOnBody::new()),
        )
        .service(Layered::new(connect, BreakerLayer::default()))
}

/// What both have to do, whoever stacked the layers.
async fn scenarios<S, B, E>(stack: impl Fn(Vec<Endpoint>) -> S)
where
    S: Service<Request<Body>, Response = http::Response<B>, Error = E> + Clone,
    B: http_body::Body<Data = bytes::Bytes, Error: std::fmt::Debug>,
    E: Into<BoxError> + std::fmt::Debug,
{
    let request = |method: Method| {
        Request::builder()
            .method(method)
            .uri("/")
            .body(Body::from("x"))
            .unwrap()
    };

    // A dead endpoint costs no call, not even one that is not idempotent.
    let good = Server::answering(200, "good").await;
    let service = stack(vec![dead_endpoint().await, good.endpoint()]);
    for _ in 0..20 {
        let response = service
            .clone()
            .oneshot(request(Method::POST))
            .await
            .unwrap();
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "good"
        );
    }
    assert_eq!(good.hits(), 20);

    // What is idempotent is tried elsewhere; what is not is sent once.
    let bad = Server::answering(500, "bad").await;
    let service = stack(vec![bad.endpoint(), good.endpoint()]);
    for _ in 0..20 {
        assert_eq!(
            service
                .clone()
                .oneshot(request(Method::GET))
                .await
                .unwrap()
                .status(),
            200
        );
    }
    let before = bad.hits() + good.hits();
    for _ in 0..20 {
        service
            .clone()
            .oneshot(request(Method::POST))
            .await
            .unwrap();
    }
    assert_eq!(bad.hits() + good.hits() - before, 20);

    // No endpoint is a refusal at once.
    let error: BoxError = stack(vec![])
        .oneshot(request(Method::GET))
        .await
        .err()
        .unwrap()
        .into();
    assert_eq!(
        Refusal::of(&*error).map(Refusal::kind),
        Some(Kind::NoEndpoint)
    );
}

#[tokio::test]
async fn the_stack_by_hand_passes_the_scenarios() {
    scenarios(by_hand).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_meshs_own_stack_passes_the_same_scenarios() {
    let runtime = tokio::runtime::Handle::current();
    scenarios(move |endpoints| {
        let mesh =
            tokio::task::block_in_place(|| runtime.block_on(mesh(endpoints, Policy::default())));
        mesh.service("orders").unwrap()
    })
    .await;
}
