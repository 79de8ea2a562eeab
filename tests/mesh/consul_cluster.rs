//! The leader of three of Consul's servers dies, under load: no caller notices it.

use tower_mesh::{Config, Instance, Mesh};

use crate::{
    agent::request,
    consul_outages::{Load, call},
    consul_servers::{cluster, leader},
    support::{Server, name, until},
};

/// A mesh that asks these servers, the first of them until it does not answer.
async fn mesh(ports: [u16; 3]) -> Mesh {
    let addresses = ports.map(|port| format!("127.0.0.1:{port}")).join(",");
    let text = format!(
        "service = \"shop\"\n[discovery]\nkind = \"consul\"\n[discovery.consul]\naddress = \"{addresses}\"\nwait = \"2s\"\n"
    );
    let mesh = Mesh::builder("").config(Config::parse(&text).unwrap());
    mesh.start().await.unwrap()
}

/// Registers another instance, through an election if need be.
async fn register(there: &Mesh) -> Server {
    let server = Server::answering(200, "here").await;
    let instance = Instance::new(name("orders"), server.endpoint());
    there.register(instance).await.unwrap();
    server
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn callers_notice_nothing_of_a_leader_that_dies_and_hear_of_what_comes_after() {
    let mut servers = cluster().await;
    let dying = leader(&servers).await;
    // The one that dies is the one that is asked.
    let ports = [0, 1, 2].map(|n| servers[(dying + n) % 3].http);
    let (here, there) = (mesh(ports).await, mesh(ports).await);
    let _before = (
        register(&there).await,
        register(&there).await,
        register(&there).await,
    );
    let orders = here.service("orders").unwrap();
    call(&orders).await.unwrap();
    let found = || here.status().services[0].endpoints.len();
    until("all are found", || found() == 3).await;
    let load = Load::on(&orders);
    load.turn_over().await;
    let until_dead = load.answered();

    servers[dying].stop();
    let survivor = ports[1];
    let was = format!("127.0.0.1:{}\"", servers[dying].rpc);
    let elected = async || {
        let said = request(survivor, "GET", "/v1/status/leader", "", "").await;
        said.is_some_and(|said| said.contains("127.0.0.1:") && !said.contains(&was))
    };
    while !elected().await {
        load.turn_over().await;
    }
    println!("{} calls without a leader", load.answered() - until_dead);
    // The nodes that are left go on, and those who call hear of it.
    let after = register(&there).await;
    until("it is called", || after.hits() > 0).await;
    load.turn_over().await;
    load.assert_none_failed();
    println!("{} calls, none failed", load.answered());
}
