//! A mesh that is told of Consul in its configuration, with a real agent.

use std::time::Duration;

use tower_mesh::{Config, Instance, Lifecycle, Mesh, core::Clock};

use crate::{
    agent::{Agent, DENYING, TOKEN, request},
    support::{Server, name, until},
};

fn config(agent: &Agent, more: &str) -> Config {
    let port = agent.port();
    let text = format!(
        "service = \"shop\"\n[discovery]\nkind = \"consul\"\n[discovery.consul]\naddress = \"127.0.0.1:{port}\"\n{more}"
    );
    Config::parse(&text).unwrap()
}

async fn mesh(agent: &Agent) -> Mesh {
    let mesh = Mesh::builder("").config(config(agent, ""));
    mesh.start().await.unwrap()
}

/// Whether the agent knows an instance of `orders`.
async fn knows(agent: &Agent) -> bool {
    let answer = request(agent.port(), "GET", "/v1/health/service/orders", "", "").await;
    // The id that it has in the catalogue begins with the service's name.
    answer.is_some_and(|answer| answer.contains("\"orders:"))
}

async fn until_knows(agent: &Agent, what: bool) {
    for _ in 0..3_000 {
        if knows(agent).await == what {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still not so after 30 s: {what}");
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn what_one_mesh_registers_with_an_agent_another_finds_and_calls() {
    let agent = Agent::start().await;
    let server = Server::answering(200, "here").await;
    let (there, here) = (mesh(&agent).await, mesh(&agent).await);
    let instance = Instance::new(name("orders"), server.endpoint());
    there.register(instance).await.unwrap();
    let orders = here.service("orders").unwrap();
    assert_eq!(orders.get("/").await.unwrap().status(), 200);
    assert_eq!(here.status().services[0].discovery.source, "consul");
    assert!(knows(&agent).await);
    there.shutdown(Duration::from_secs(5)).await.unwrap();
    assert!(!knows(&agent).await);
}

/// DNS has no fields for what only a mesh needs, but whom to call it says; and what it does not know, the next source may.
#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn what_is_registered_with_an_agent_is_found_in_its_dns_too() {
    let agent = Agent::start().await;
    let (server, legacy) = (
        Server::answering(200, "orders").await,
        Server::answering(200, "legacy").await,
    );
    let there = mesh(&agent).await;
    let instance = Instance::new(name("orders"), server.endpoint());
    there.register(instance).await.unwrap();
    let (dns, address) = (agent.dns(), legacy.endpoint().address());
    let config = format!(
        "service = \"shop\"\n[discovery]\nkind = [\"dns\", \"static\"]\n[discovery.dns]\nservers = \"127.0.0.1:{dns}\"\n\
         name = \"{{service}}.service.consul\"\n[discovery.endpoints]\nlegacy = [{{ address = \"{address}\" }}]"
    );
    let here = Mesh::builder("").config(Config::parse(&config).unwrap());
    let here = here.start().await.unwrap();
    for (service, server) in [("orders", &server), ("legacy", &legacy)] {
        let service = here.service(service).unwrap();
        assert_eq!(service.get("/").await.unwrap().status(), 200);
        assert_eq!(server.hits(), 1);
    }
    here.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(here.tasks(), 0);
    there.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn checks_that_are_configured_are_made_by_the_agent_of_what_is_registered() {
    let agent = Agent::start().await;
    let server = Server::answering(200, "well").await;
    let keys =
        "checks = [{ kind = \"http\", path = \"/healthz\", every = \"200ms\", limit = \"100ms\" }]";
    let mesh = Mesh::builder("").config(config(&agent, keys));
    let mesh = mesh.start().await.unwrap();
    mesh.register(Instance::new(name("orders"), server.endpoint()))
        .await
        .unwrap();
    until("the agent asks", || server.hits() > 0).await;
    mesh.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn a_mesh_that_shuts_down_is_taken_out_of_consul_before_its_calls_have_ended() {
    let agent = Agent::start().await;
    let server = Server::hanging().await;
    let mesh = mesh(&agent).await;
    let instance = Instance::new(name("orders"), server.endpoint());
    mesh.register(instance).await.unwrap();
    let orders = mesh.service("orders").unwrap();
    let call = tokio::spawn(async move { orders.get("/").await });
    until("the call is there", || server.hits() == 1).await;
    assert!(knows(&agent).await);
    let ending = mesh.clone();
    let end = tokio::spawn(async move { ending.shutdown(Duration::from_secs(600)).await });
    until_knows(&agent, false).await;
    assert_eq!(mesh.lifecycle(), Lifecycle::Draining);
    call.abort();
    end.await.unwrap().unwrap();
}

/// Half a minute passes on the mesh's clock alone.
#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn an_instance_without_a_ttl_comes_back_to_an_agent_that_has_lost_its_state() {
    let mut agent = Agent::start().await;
    let server = Server::answering(200, "here").await;
    let (clock, time) = Clock::manual();
    let mesh = Mesh::builder("").config(config(&agent, "")).clock(clock);
    let mesh = mesh.start().await.unwrap();
    let instance = Instance::new(name("orders"), server.endpoint());
    mesh.register(instance).await.unwrap();
    assert!(knows(&agent).await);
    agent.lose_state().await;
    assert!(!knows(&agent).await);
    time.advance(Duration::from_secs(30));
    until_knows(&agent, true).await;
    mesh.shutdown(Duration::from_secs(5)).await.unwrap();
    assert!(!knows(&agent).await);
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn a_token_out_of_a_file_opens_an_agent_that_denies_and_stands_nowhere() {
    let agent = Agent::with(DENYING).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), TOKEN).unwrap();
    let keys = format!("token_file = {:?}", file.path());
    let config = config(&agent, &keys);
    let mesh = Mesh::builder("").config(config.clone());
    let mesh = mesh.start().await.unwrap();
    let server = Server::answering(200, "here").await;
    let instance = Instance::new(name("orders"), server.endpoint());
    mesh.register(instance).await.unwrap();
    let orders = mesh.service("orders").unwrap();
    assert_eq!(orders.get("/").await.unwrap().status(), 200);
    let status = mesh.status();
    let json = serde_json::to_string(&status).unwrap();
    let told = format!("{config:?} {mesh:?} {status} {status:?} {json}");
    assert!(!told.contains(TOKEN), "{told}");

    // One that is denied says which permission it lacks, and not with which token it asked.
    std::fs::write(file.path(), "00000000-ca0a-4000-8000-000000000001").unwrap();
    let denied = Mesh::builder("").config(config).start().await.unwrap();
    let instance = Instance::new(name("orders"), server.endpoint());
    let error = denied.register(instance).await.unwrap_err();
    let told = format!("{error} {error:?}");
    assert!(told.contains("service:write on orders"), "{told}");
    assert!(!told.contains("00000000-ca0a"), "{told}");
}
