//! Discovery against a real agent.

use std::time::Duration;

use tower_mesh_core::{Health, Register, testing::conformance};

use crate::{
    agent::{Agent, DENYING, TOKEN},
    scene::{Scene, Seen, instance, orders},
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn consul_conforms_as_a_source() {
    let scene = Scene::new().await;
    conformance::resolve(&scene).await.expect("it conforms");
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn an_agent_that_lost_its_state_is_followed_from_the_beginning() {
    let mut agent = Agent::start().await;
    let consul = agent.consul().wait(Duration::from_secs(2));
    // The index of the new state is smaller than that of the old one.
    let mut kept = Vec::new();
    for port in 1..=20 {
        kept.push(consul.register(instance(port)).await.unwrap());
    }
    let mut seen = Seen::start(&consul, &orders());
    assert_eq!(seen.ports().await.len(), 20);
    agent.lose_state().await;
    let _again = consul.register(instance(99)).await.unwrap();
    seen.until(&[(99, Health::Passing)]).await;
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn an_agent_that_does_not_answer_is_left_for_the_next() {
    let (mut first, second) = (Agent::start().await, Agent::start().await);
    let _known = second.consul().register(instance(2)).await.unwrap();
    let addresses = format!("127.0.0.1:{}, 127.0.0.1:{}", first.port(), second.port());
    let both = tower_mesh_consul::Consul::new(&addresses).unwrap();
    let mut seen = Seen::start(&both.wait(Duration::from_secs(2)), &orders());
    assert!(seen.ports().await.is_empty(), "the first is asked first");
    first.stop();
    seen.until(&[(2, Health::Passing)]).await;
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn a_token_that_lacks_a_permission_is_told_which() {
    let agent = Agent::with(DENYING).await;
    let bogus = agent
        .consul()
        .token("5ec2e700-ca0a-4000-8000-111111111111")
        .unwrap();
    let error = Seen::start(&bogus, &orders()).error().await;
    assert!(error.contains("service:read on orders"), "{error}");
    assert!(!error.contains("5ec2e7"), "{error}");
    let denied = agent.consul().register(instance(1)).await.unwrap_err();
    let denied = crate::scene::chain(&denied);
    assert!(denied.contains("service:write on orders"), "{denied}");
}

/// So the empty answer is suspect, and discovery keeps what was known.
#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn without_a_token_a_denied_service_looks_empty() {
    let agent = Agent::with(DENYING).await;
    let master = agent.consul().token(TOKEN).unwrap();
    let _known = master.register(instance(1)).await.unwrap();
    assert_eq!(Seen::start(&master, &orders()).ports().await, [1]);
    let mut anonymous = Seen::start(&agent.consul(), &orders());
    assert!(anonymous.ports().await.is_empty());
}
