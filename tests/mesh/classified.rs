//! What a classification of the user's own says is what retries go by.

use tower_mesh::{
    Mesh, Policy,
    balance::Strategy,
    core::{Outcome, Ratio},
    discovery::Static,
    http::{ClassifyLayer, Seen},
};

use crate::support::{Server, name};

#[tokio::test]
async fn an_answer_that_a_closure_takes_for_a_failure_is_asked_for_elsewhere() {
    let forgetful = Server::answering(404, "lost").await;
    let whole = Server::answering(200, "order").await;
    let endpoints = vec![forgetful.endpoint(), whole.endpoint()];
    let mut policy = Policy::default();
    policy.balance = Strategy::RoundRobin;
    // So few calls earn no retry.
    policy.retry.budget = Ratio::ONE;
    let mesh = Mesh::builder("shop")
        .discovery(Static::new().service(name("orders"), endpoints))
        .defaults(policy)
        .start()
        .await
        .unwrap();
    // As usual, it is an answer like any other.
    let orders = mesh.service("orders").unwrap();
    let mut found = Vec::new();
    for _ in 0..2 {
        found.push(orders.get("/orders/42").await.unwrap().status());
    }
    found.sort();
    assert_eq!(found, [200, 404]);

    let lost = |call: &Seen<'_>| {
        let lost = call.request.method == "GET" && call.response?.status == 404;
        lost.then_some(Outcome::failure())
    };
    let orders = mesh
        .service_with("orders", ClassifyLayer::new(lost))
        .unwrap();
    for _ in 0..2 {
        let answer = orders.get("/orders/42").await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert!(forgetful.hits() > 1, "once as usual, then in vain");
}
