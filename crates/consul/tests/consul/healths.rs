//! The health of several services at once.

use std::time::Duration;

use tower_mesh_consul::{CheckHealth, ErrorKind, ServiceHealth};
use tower_mesh_core::{Clock, Health, Instance, Register, Registration};

use crate::{
    agent::{Agent, DENYING, TOKEN, request},
    scene::{endpoint, name, pass},
};

async fn beating(agent: &Agent, service: &str, port: u16) -> Registration {
    let instance = Instance::new(name(service), endpoint(port));
    let instance = instance.with_ttl(Duration::from_secs(60));
    agent.consul().register(instance).await.unwrap()
}

/// A check of the agent's node, whose output is far too long.
async fn node_check(agent: &Agent, status: &str) {
    let output = "x".repeat(3_000);
    let check =
        serde_json::json!({ "ID": "disk", "Name": "disk space", "TTL": "60s", "Status": status });
    let said = serde_json::json!({ "Status": status, "Output": output });
    for (path, body) in [
        ("/v1/agent/check/register", check),
        ("/v1/agent/check/update/disk", said),
    ] {
        let done = request(agent.port(), "PUT", path, "", &body.to_string()).await;
        assert!(done.unwrap().starts_with("HTTP/1.1 200"));
    }
}

/// What the checks say once `until` is content; the catalogue hears of it a moment after the agent.
async fn health(agent: &Agent, until: impl Fn(&[ServiceHealth]) -> bool) -> Vec<ServiceHealth> {
    let (consul, clock) = (agent.consul(), Clock::tokio());
    let began = clock.now();
    loop {
        let all = consul.health(["orders", "stock", "nobody"]).await;
        let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
        if until(&all) {
            return all;
        }
        let waited = clock.now().since(began);
        assert!(waited < Duration::from_secs(60), "{all:#?}");
        pass(Duration::from_millis(50)).await;
    }
}

fn failing(checks: &[CheckHealth]) -> Vec<&str> {
    let failing = checks.iter().filter(|c| c.health == Health::Critical);
    failing.map(|check| check.name.as_str()).collect()
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn a_failing_check_of_a_service_and_one_of_its_node_are_told_apart() {
    let agent = Agent::start().await;
    let orders = beating(&agent, "orders", 1).await;
    let _stock = beating(&agent, "stock", 2).await;
    let all = health(&agent, |all| all[1].worst() == Some(Health::Passing)).await;
    let services: Vec<_> = all.iter().map(|one| one.service.as_str()).collect();
    assert_eq!(services, ["orders", "stock", "nobody"], "in their order");
    assert_eq!(all[0].worst(), Some(Health::Passing));
    assert_eq!(all[2].worst(), None, "there is no such service");

    orders.heartbeat(Health::Critical).await.unwrap();
    let all = health(&agent, |all| all[0].worst() == Some(Health::Critical)).await;
    let [of_orders, of_stock] = [&all[0].instances[0], &all[1].instances[0]];
    assert_eq!(failing(&of_orders.service_checks), ["heartbeat"]);
    assert!(failing(&of_orders.node_checks).is_empty());
    assert_eq!(of_stock.worst(), Health::Passing, "it is another service's");
    assert_eq!((&*of_orders.node, &*of_orders.id), ("agent", "127.0.0.1:1"));

    orders.heartbeat(Health::Passing).await.unwrap();
    node_check(&agent, "critical").await;
    let says = |all: &[ServiceHealth]| {
        let mut instances = all.iter().flat_map(|one| &one.instances);
        instances.all(|one| {
            failing(&one.node_checks) == ["disk space"]
                && one.node_checks.iter().any(|c| !c.output.is_empty())
        }) && failing(&all[0].instances[0].service_checks).is_empty()
    };
    for one in &health(&agent, says).await[..2] {
        let instance = &one.instances[0];
        assert_eq!(instance.worst(), Health::Critical, "its node is ill");
        let disk = instance
            .node_checks
            .iter()
            .find(|c| c.id == "disk")
            .unwrap();
        assert!(disk.output.len() <= 200, "{}", disk.output.len());
        assert!(one.age < Duration::from_secs(60), "{:?}", one.age);
    }
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn a_service_whose_health_cannot_be_had_takes_no_other_with_it() {
    let agent = Agent::with(DENYING).await;
    let master = agent.consul().token(TOKEN).unwrap();
    let kinds = async |consul: tower_mesh_consul::Consul| {
        let all = consul.health(["orders", "../kv/a", "stock"]).await;
        let kinds = all
            .into_iter()
            .map(|one| one.err().map(|error| error.kind()));
        kinds.collect::<Vec<_>>()
    };
    assert_eq!(kinds(master).await, [None, Some(ErrorKind::Refused), None]);
    let bogus = agent.consul().token("5ec2e700-ca0a-4000-8000-111111111111");
    let [denied, refused] = [ErrorKind::Denied, ErrorKind::Refused].map(Some);
    assert_eq!(kinds(bogus.unwrap()).await, [denied, refused, denied]);
}
