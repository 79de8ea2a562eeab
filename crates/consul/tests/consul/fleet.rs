//! More services than an agent takes connections.

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tower_mesh_core::{Clock, Register, Resolve, ServiceName, Update, Updates};

use crate::{
    agent::{Agent, as_long_as, is_long, request},
    proxy::Proxy,
    scene::{instance, name, pass},
};

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

/// What this process holds of the machine's memory, in KiB; none where nobody says so.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// With `--long` 1,000 services of 10,000 endpoints; the figures are printed (the crate's own page has some).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn more_services_than_an_agent_takes_connections_are_followed_without_an_error() {
    let (services, changes) = if is_long() { (1_000, 20) } else { (300, 1) };
    let agent = Agent::start().await;
    let proxy = Proxy::before(agent.port()).await;
    let node = r#"{"Node":"elsewhere","Address":"10.0.0.1"}"#;
    request(agent.port(), "PUT", "/v1/catalog/register", "", node)
        .await
        .unwrap();
    for n in 0..services {
        enter(&agent, n).await;
    }
    let consul = proxy.consul();
    let (clock, before) = (Clock::tokio(), resident());
    let began = clock.now();
    let mut following: FuturesUnordered<_> = (0..services)
        .map(|n| next(consul.resolve(&service(n)), n))
        .collect();
    let mut answered = Vec::new();
    while answered.len() < services {
        let (updates, n, told) = following.next().await.unwrap();
        assert_eq!(told, Ok(ENDPOINTS), "service {n}");
        answered.push((updates, n));
    }
    println!(
        "{services} services, {} endpoints: all have answered after {:?}",
        services * ENDPOINTS,
        clock.now().since(began)
    );

    // All of them ask again, and most of them wait for a place.
    let (news, mut heard) = tokio::sync::mpsc::unbounded_channel();
    for (mut updates, n) in answered {
        let news = news.clone();
        tokio::spawn(async move {
            while let Some(told) = updates.next().await {
                let told = match told {
                    Ok(Update::Replace(all)) => Ok(all.len()),
                    other => Err(format!("{other:?}")),
                };
                let _ = news.send((n, told));
            }
        });
    }
    let minute = as_long_as(Duration::from_secs(60), Duration::from_secs(2));
    let requests = proxy.requests();
    pass(minute).await;
    let requests = proxy.requests() - requests;
    println!("{requests} requests within {minute:?}");
    // S6 of reference/performance.md (d): at first each place is taken, then 20 a second, for those are the defaults.
    assert!(requests <= 128 + 22 * minute.as_secs(), "{requests}");
    if let (Some(before), Some(after)) = (before, resident()) {
        println!("{} KiB more than before", after.saturating_sub(before));
    }

    let mut began = HashMap::new();
    let mut registrations = Vec::new();
    for change in 0..changes {
        let n = services - 1 - change * 37;
        let changed = tower_mesh_core::Instance::new(service(n), instance(77).endpoint().clone());
        began.insert(n, clock.now());
        registrations.push(agent.consul().register(changed).await.unwrap());
    }
    let mut times = Vec::new();
    while !began.is_empty() {
        let told = tokio::time::timeout(Duration::from_secs(120), heard.recv());
        let (n, told) = told.await.expect("its turn comes").unwrap();
        assert_eq!(told, Ok(ENDPOINTS + 1));
        times.push(clock.now().since(began.remove(&n).unwrap()));
    }
    times.sort_unstable();
    println!(
        "a change was heard after {:?}, at most {:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
}
