//! Callers while an agent is away.

use std::time::Duration;

use tower::{Layer, ServiceExt, service_fn};
use tower_mesh_core::{BoxError, Clock, Health, Register};
use tower_mesh_discovery::Discovery;

use crate::{
    agent::Agent,
    scene::{instance, orders, pass},
};

/// Scenario 28 of reference/mesh.md, in small: the agent is away for 3 s, comes back without its state, and the
/// instance registers again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn no_call_fails_while_the_agent_is_away_nor_when_it_has_forgotten_everything() {
    let mut agent = Agent::start().await;
    let consul = agent.consul();
    let beating = instance(1).with_ttl(Duration::from_secs(60));
    let registration = consul.register(beating).await.unwrap();
    let (discovery, driver) = Discovery::builder(consul.clone()).build();
    tokio::spawn(driver);
    let layer = discovery.layer(&orders());
    let endpoints = layer.endpoints().clone();
    let service = layer.layer(service_fn(move |(): ()| {
        let there = endpoints.current().endpoints().len();
        async move {
            match there {
                1 => Ok::<_, BoxError>(()),
                other => Err(format!("{other} endpoints").into()),
            }
        }
    }));
    service.clone().oneshot(()).await.unwrap();

    agent.stop();
    let status = || discovery.status().pop().unwrap();
    let away = Clock::tokio().now();
    let mut seen_failing = false;
    while Clock::tokio().now().since(away) < Duration::from_secs(3) {
        service.clone().oneshot(()).await.unwrap();
        seen_failing |= status().last_error.is_some() && status().age.is_some();
        pass(Duration::from_millis(5)).await;
    }
    assert!(
        seen_failing,
        "the status shows the error, and the age of what is used"
    );

    agent.lose_state().await;
    // It answers that there is nothing: suspect, so the old endpoint is held.
    while !status().suspect {
        service.clone().oneshot(()).await.unwrap();
        pass(Duration::from_millis(5)).await;
    }
    registration.heartbeat(Health::Passing).await.unwrap();
    while status().suspect || status().last_error.is_some() {
        service.clone().oneshot(()).await.unwrap();
        pass(Duration::from_millis(5)).await;
    }
}
