//! The contract of every service, for the layer: while the answer is there, and while it never comes.

use tower::Layer;
use tower_mesh_core::testing::contract::{Contract, Subject};
use tower_mesh_discovery::{Discovery, MemoryRegistry};

use crate::script::{Script, endpoint, orders, secs, start};

#[tokio::test(start_paused = true)]
async fn a_service_that_is_found_keeps_the_contract() {
    let registry = MemoryRegistry::new();
    registry.set(&orders(), [endpoint(1)]);
    let discovery = start(Discovery::builder(registry));
    let layer = discovery.layer(&orders());
    layer.endpoints().resolved().await;
    Contract::new(|| "request", || "response")
        .check(|inner| Subject::new(layer.layer(inner)))
        .await
        .expect("it keeps the contract");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_never_found_ends_calls_in_time() {
    use tower_mesh_core::testing::contract::Rule;

    let discovery = start(Discovery::builder(Script::new()));
    let layer = discovery.layer(&orders()).wait(secs(3));
    Contract::new(|| "request", || "response")
        .ends_within(secs(3))
        // It answers with an error.
        .without(Rule::Answers)
        .without(Rule::AnswersCloned)
        .check(|inner| Subject::new(layer.layer(inner)))
        .await
        .expect("it keeps the contract");
}
