//! Checks that a real agent makes by itself.

use std::time::Duration;

use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic_health::{ServingStatus, server::HealthReporter};
use tower_mesh::{
    Endpoint, Instance,
    core::{Health, Register, Registration},
};
use tower_mesh_consul::{Check, Consul};

use crate::{agent::Agent, support::name};

/// A tonic server that says how `orders` is, until its task is ended.
async fn server() -> (Endpoint, HealthReporter, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(listener.local_addr().unwrap());
    let (health, service) = tonic_health::server::health_reporter();
    health
        .set_service_status("orders", ServingStatus::Serving)
        .await;
    let serve = Server::builder().add_service(service);
    let serve = serve.serve_with_incoming(TcpListenerStream::new(listener));
    let task = tokio::spawn(async move { serve.await.unwrap() });
    (endpoint, health, task)
}

async fn registered(agent: &Agent, endpoint: &Endpoint, check: Check) -> (Consul, Registration) {
    let check = check.every(Duration::from_millis(200));
    let consul = agent.consul().check(check.limit(Duration::from_secs(2)));
    let instance = Instance::new(name("orders"), endpoint.clone());
    let registration = consul.register(instance).await.unwrap();
    (consul, registration)
}

/// Waits until its check comes to this, and says what it answered.
async fn until(consul: &Consul, expected: Health) -> String {
    for _ in 0..600 {
        let health = consul.health(["orders"]).await.remove(0).unwrap();
        let check = health.instances[0].service_checks[0].clone();
        // Before it is made for the first time it is critical, and says nothing.
        if check.health == expected && !check.output.is_empty() {
            assert_eq!(check.name, "grpc health");
            return check.output;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not {expected:?} after 30 s");
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn a_grpc_check_passes_while_its_service_serves_and_no_longer() {
    let agent = Agent::start().await;
    let (endpoint, health, task) = server().await;
    let check = Check::grpc_service("orders");
    let (consul, _registration) = registered(&agent, &endpoint, check).await;
    until(&consul, Health::Passing).await;
    let say = |status| health.set_service_status("orders", status);
    say(ServingStatus::NotServing).await;
    let said = until(&consul, Health::Critical).await;
    println!("not serving: {said}");
    say(ServingStatus::Serving).await;
    until(&consul, Health::Passing).await;
    // Now it is gone altogether.
    task.abort();
    let said = until(&consul, Health::Critical).await;
    println!("gone: {said}");
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn a_grpc_check_of_the_whole_server_asks_for_no_name_of_a_service() {
    let agent = Agent::start().await;
    let (endpoint, health, _task) = server().await;
    let (consul, _registration) = registered(&agent, &endpoint, Check::grpc()).await;
    until(&consul, Health::Passing).await;
    health
        .set_service_status("", ServingStatus::NotServing)
        .await;
    until(&consul, Health::Critical).await;
}
