//! More services than an agent takes connections.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use tower_mesh_core::{Clock, Register, Resolve, ServiceName, Update, Updates};

use crate::{
    agent::{Agent, request},
    scene::{instance, name},
};

const SERVICES: usize = 300;
const ENDPOINTS: usize = 10;

fn service(n: usize) -> ServiceName {
    name(&format!("service-{n}"))
}

/// Puts all endpoints of a service into the catalogue at once.
async fn enter(agent: &Agent, n: usize) {
    let ops: Vec<_> = (0..ENDPOINTS)
        .map(|port| {
            let id = format!("{n}-{port}");
            let service = serde_json::json!({
                "ID": id, "Service": service(n).as_str(), "Address": "10.0.0.1", "Port": port + 1,
            });
            let set = serde_json::json!({ "Verb": "set", "Node": "elsewhere", "Service": service });
            serde_json::json!({ "Service": set })
        })
        .collect();
    let body = serde_json::to_string(&ops).unwrap();
    let done = request(agent.port(), "PUT", "/v1/txn", "", &body)
        .await
        .unwrap();
    assert!(done.starts_with("HTTP/1.1 200"), "{done}");
}

/// A report of one of many.
async fn next(mut updates: Updates, n: usize) -> (Updates, usize, Result<usize, String>) {
    let told = match updates.next().await.expect("it never ends") {
        Ok(Update::Replace(all)) => Ok(all.len()),
        other => Err(format!("{other:?}")),
    };
    (updates, n, told)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn more_services_than_an_agent_takes_connections_are_followed_without_an_error() {
    let agent = Agent::start().await;
    let node = r#"{"Node":"elsewhere","Address":"10.0.0.1"}"#;
    request(agent.port(), "PUT", "/v1/catalog/register", "", node)
        .await
        .unwrap();
    for n in 0..SERVICES {
        enter(&agent, n).await;
    }
    let consul = agent.consul();
    let clock = Clock::tokio();
    let began = clock.now();
    let mut following: FuturesUnordered<_> = (0..SERVICES)
        .map(|n| next(consul.resolve(&service(n)), n))
        .collect();
    let mut answered = Vec::new();
    while answered.len() < SERVICES {
        let (updates, n, told) = following.next().await.unwrap();
        assert_eq!(told, Ok(ENDPOINTS), "service {n}");
        answered.push((updates, n));
    }
    println!(
        "{SERVICES} services have answered after {:?}",
        clock.now().since(began)
    );

    // All of them ask again, and most of them wait for a place; one of those changes.
    let mut following: FuturesUnordered<_> = answered
        .into_iter()
        .map(|(updates, n)| next(updates, n))
        .collect();
    let last = SERVICES - 1;
    let changed = tower_mesh_core::Instance::new(service(last), instance(77).endpoint().clone());
    let registering = agent.consul();
    let register = async { registering.register(changed).await.unwrap() };
    let began = clock.now();
    let heard = async {
        loop {
            let (_, n, told) = following.next().await.unwrap();
            assert!(told.is_ok(), "service {n}: {told:?}");
            if n == last {
                return told;
            }
        }
    };
    let (_registration, heard) = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::join!(register, heard)
    })
    .await
    .expect("its turn comes");
    assert_eq!(heard, Ok(ENDPOINTS + 1));
    println!("a change was heard after {:?}", clock.now().since(began));
}
