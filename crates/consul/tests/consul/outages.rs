//! Callers while an agent is away.

use std::time::Duration;

use tower::{Layer, ServiceExt, service_fn};
use tower_mesh_core::{BoxError, Clock, Health, Register};
use tower_mesh_discovery::Discovery;

use crate::{
    agent::Agent,
    scene::{Seen, instance, orders, pass},
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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn who_follows_a_service_hears_soon_who_comes_and_goes() {
    let agent = Agent::start().await;
    let consul = agent.consul();
    let mut seen = Seen::start(&consul, &orders());
    assert!(seen.ports().await.is_empty());
    let clock = Clock::tokio();
    let mut times = Vec::new();
    for _ in 0..5 {
        let began = clock.now();
        let registration = consul.register(instance(1)).await.unwrap();
        seen.until(&[(1, Health::Passing)]).await;
        times.push(clock.now().since(began));
        let began = clock.now();
        registration.deregister().await.unwrap();
        seen.until(&[]).await;
        times.push(clock.now().since(began));
    }
    // Reported, not asserted: it is the machine's time.
    println!("registered and heard, deregistered and heard: {times:?}");
}
