//! Endpoints that come and go in a real agent's catalogue, under load.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tower_mesh::{
    Instance, Mesh,
    core::{Register, Weight},
};

use crate::{
    agent::{Agent, as_long_as},
    consul_outages::{Load, call, config},
    support::{Server, answer, name, until},
};

fn instance(server: &Server) -> Instance {
    Instance::new(name("orders"), server.endpoint())
}

/// One that answers at once, and `/hold` when it is told to.
async fn holding(free: &Arc<Semaphore>) -> Server {
    let free = Arc::clone(free);
    Server::start(move |request| {
        let free = Arc::clone(&free);
        async move {
            if request.uri().path() == "/hold" {
                free.acquire().await.unwrap().forget();
            }
            answer(200, "here")
        }
    })
    .await
}

/// Scenario 27 of reference/mesh.md: {A, B, C} becomes {A, B of another weight, D}.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn an_update_keeps_the_connections_of_those_who_stay_and_the_calls_of_those_who_go() {
    let agent = Agent::start().await;
    let free = Arc::new(Semaphore::new(0));
    let [a, b, d] = [
        Server::answering(200, "here").await,
        Server::answering(200, "here").await,
        Server::answering(200, "here").await,
    ];
    let c = holding(&free).await;
    let consul = agent.consul();
    let _a = consul.register(instance(&a)).await.unwrap();
    let _b = consul.register(instance(&b)).await.unwrap();
    let gone = consul.register(instance(&c)).await.unwrap();
    // By turns, so that each of them is called: the fastest would get nearly all.
    let more = "[defaults]\nbalance = \"round-robin\"\nslow_start = \"0s\"";
    let here = Mesh::builder("").config(config(agent.port(), more));
    let here = here.start().await.unwrap();
    let orders = here.service("orders").unwrap();
    // One that has never answered gets one call at a time.
    while [&a, &b, &c].iter().any(|server| server.hits() == 0) {
        call(&orders).await.unwrap();
    }
    // Only one of them holds anybody.
    let mut held = Vec::new();
    let mut sent = a.hits() + b.hits() + c.hits();
    let before = c.hits();
    while c.hits() < before + 3 {
        let orders = orders.clone();
        held.push(tokio::spawn(async move { orders.get("/hold").await }));
        sent += 1;
        until("it has arrived", || a.hits() + b.hits() + c.hits() >= sent).await;
    }
    let forty = async || {
        for _ in 0..40 {
            call(&orders).await.unwrap();
        }
    };
    // Connections that are idle, which those of the calls that are held are not.
    let mut before = [a.take_peers(), b.take_peers()].map(|_| HashSet::new());
    while before.iter().any(HashSet::is_empty) {
        forty().await;
        before[0].extend(a.take_peers());
        before[1].extend(b.take_peers());
    }
    let hits = c.hits();

    let heavier = b.endpoint().with_weight(Weight::new(3));
    let heavier = Instance::new(name("orders"), heavier);
    let _heavier = consul.register(heavier).await.unwrap();
    let _d = consul.register(instance(&d)).await.unwrap();
    gone.deregister().await.unwrap();
    until("all of it is known", || {
        let endpoints = &here.status().services[0].endpoints;
        let is = |server: &Server, weight| {
            let address = server.endpoint().address().to_string();
            endpoints
                .iter()
                .any(|e| e.address == address && e.weight == weight)
        };
        endpoints.len() == 3 && is(&a, 1) && is(&b, 3) && is(&d, 1)
    })
    .await;
    let mut now = [HashSet::new(), HashSet::new()];
    let mut rounds = 0;
    while d.hits() == 0
        || now
            .iter()
            .zip(&before)
            .any(|(now, before)| now.is_disjoint(before))
    {
        rounds += 1;
        assert!(rounds < 20, "dialled anew: {before:?}, then {now:?}");
        forty().await;
        now[0].extend(a.take_peers());
        now[1].extend(b.take_peers());
    }
    assert_eq!(c.hits(), hits, "it takes no new calls");
    // Calls that follow closely upon each other may want a second one.
    assert!(d.take_peers().len() <= 2);
    free.add_permits(held.len());
    for call in held {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
}

/// S8 of reference/performance.md (d): all of them are replaced, one after the other, each draining.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn a_deploy_that_replaces_every_endpoint_fails_no_call_and_leaves_nothing_behind() {
    let agent = Agent::start().await;
    let consul = agent.consul();
    let drain = as_long_as(Duration::from_secs(5), Duration::from_millis(300));
    let count = if drain < Duration::from_secs(1) {
        4
    } else {
        10
    };
    let mut fleet = Vec::new();
    for _ in 0..count {
        let server = Server::answering(200, "old").await;
        let registration = consul.register(instance(&server)).await.unwrap();
        fleet.push((server, registration));
    }
    // In the end they all go, and nothing is held.
    let here = Mesh::builder("").config(config(agent.port(), "empty_grace = \"0s\""));
    let here = here.start().await.unwrap();
    let orders = here.service("orders").unwrap();
    let known = || here.status().services[0].endpoints.len();
    until("they are found", || known() == count).await;
    let tasks = here.tasks();
    let load = Load::on(&orders);
    load.turn_over().await;
    let mut most = tasks;
    for place in &mut fleet {
        let server = Server::answering(200, "new").await;
        let registration = consul.register(instance(&server)).await.unwrap();
        let (old, gone) = std::mem::replace(place, (server, registration));
        gone.deregister().await.unwrap();
        let address = old.endpoint().address().to_string();
        until("it is known to be gone", || {
            let endpoints = &here.status().services[0].endpoints;
            endpoints.iter().all(|endpoint| endpoint.address != address)
        })
        .await;
        // Whoever had picked it before has called it by now.
        load.turn_over().await;
        let hits = old.hits();
        tokio::time::sleep(drain).await;
        assert_eq!(old.hits(), hits, "no call begins there");
        most = most.max(here.tasks());
    }
    load.turn_over().await;
    load.assert_none_failed();
    println!("{} calls, {tasks} tasks, at most {most}", load.answered());
    assert_eq!(known(), count);
    drop(load);
    for (_, registration) in fleet {
        registration.deregister().await.unwrap();
    }
    until("all are known to be gone", || known() == 0).await;
    until("no more runs than before", || here.tasks() == tasks).await;
}
