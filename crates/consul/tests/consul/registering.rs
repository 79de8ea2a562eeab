//! Registration with a real agent.

use std::time::Duration;

use tokio::net::TcpListener;
use tower_mesh_consul::Check;
use tower_mesh_core::{Clock, Endpoint, Health, Instance, Register, testing::conformance};

use crate::{
    agent::{Agent, is_long, request},
    scene::{Scene, Seen, chain, instance, orders, pass},
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn consul_conforms_as_a_registry() {
    let scene = Scene::new().await;
    conformance::register(&scene).await.expect("it conforms");
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn an_instance_that_the_agent_has_lost_is_registered_again_by_its_heartbeat() {
    let mut agent = Agent::start().await;
    let consul = agent.consul().wait(Duration::from_secs(2));
    let beating = instance(1).with_ttl(Duration::from_secs(60));
    let beating = consul.register(beating).await.unwrap();
    let silent = consul.register(instance(2)).await.unwrap();
    agent.lose_state().await;
    beating.heartbeat(Health::Warning).await.unwrap();
    silent.heartbeat(Health::Passing).await.unwrap();
    let mut seen = Seen::start(&consul, &orders());
    seen.until(&[(1, Health::Warning), (2, Health::Passing)])
        .await;
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn a_heartbeat_of_an_older_registration_moves_nothing() {
    let agent = Agent::start().await;
    let consul = agent.consul();
    let again = || instance(1).with_ttl(Duration::from_secs(60));
    let older = consul.register(again()).await.unwrap();
    let _newer = consul.register(again()).await.unwrap();
    let error = older.heartbeat(Health::Critical).await.unwrap_err();
    assert!(chain(&error).contains("registered anew"), "{error}");
    older.deregister().await.unwrap();
    let mut seen = Seen::start(&consul, &orders());
    assert_eq!(seen.next().await, Ok(vec![(1, Health::Passing)]));
}

/// How long it takes to be seen by one who follows the service: an instance that comes, whose check fails, that goes.
async fn times(agent: &Agent, seen: &mut Seen) -> [Duration; 3] {
    let (consul, clock) = (agent.consul(), Clock::tokio());
    let began = clock.now();
    let instance = instance(1).with_ttl(Duration::from_secs(60));
    let registration = consul.register(instance).await.unwrap();
    seen.until(&[(1, Health::Passing)]).await;
    let registered = clock.now();
    registration.heartbeat(Health::Critical).await.unwrap();
    seen.until(&[(1, Health::Critical)]).await;
    let failed = clock.now();
    registration.deregister().await.unwrap();
    seen.until(&[]).await;
    let gone = clock.now();
    [
        registered.since(began),
        failed.since(registered),
        gone.since(failed),
    ]
}

/// The best of three, so that a machine that stalls for a moment says nothing about the agent.
#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn who_comes_who_fails_and_who_goes_is_seen_within_a_second() {
    let agent = Agent::start().await;
    // Its own request is held for minutes: nothing is seen because it was asked again.
    let mut seen = Seen::start(&agent.consul(), &orders());
    seen.until(&[]).await;
    let mut best = [Duration::MAX; 3];
    for _ in 0..3 {
        let measured = times(&agent, &mut seen).await;
        println!("registered, failed, gone: seen after {measured:?}");
        for (best, measured) in best.iter_mut().zip(measured) {
            *best = measured.min(*best);
        }
    }
    for best in best {
        assert!(best < Duration::from_secs(1), "{best:?}");
    }
}

/// TCP here, HTTP below: the agent makes them by itself.
#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn the_agents_own_check_tells_when_an_instance_comes_and_goes() {
    let agent = Agent::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let check = Check::tcp()
        .every(Duration::from_millis(200))
        .limit(Duration::from_millis(100));
    let consul = agent.consul().check(check);
    let instance = Instance::new(orders(), Endpoint::new(address));
    let _registration = consul.register(instance).await.unwrap();
    let mut seen = Seen::start(&consul, &orders());
    seen.until(&[(address.port(), Health::Passing)]).await;
    drop(listener);
    seen.until(&[(address.port(), Health::Critical)]).await;
}

/// Consul's least for it is a minute, and it looks each half minute: only a long run sees it gone.
#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn an_instance_that_died_without_a_word_is_critical_after_its_ttl_and_then_forgotten() {
    let agent = Agent::start().await;
    let consul = agent.consul().forget_after(Duration::from_secs(60));
    let dying = instance(1).with_ttl(Duration::from_secs(1));
    // Nobody sends heartbeats here; and it is not taken back by a drop.
    std::mem::forget(consul.register(dying).await.unwrap());
    let clock = Clock::tokio();
    let died = clock.now();
    let mut seen = Seen::start(&consul, &orders());
    seen.until(&[(1, Health::Critical)]).await;
    if is_long() {
        let known = async || {
            let asked = request(agent.port(), "GET", "/v1/health/service/orders", "", "").await;
            asked.is_none_or(|answer| answer.contains("orders:"))
        };
        while known().await {
            assert!(clock.now().since(died) < Duration::from_secs(150));
            pass(Duration::from_millis(200)).await;
        }
        println!("forgotten after {:?}", clock.now().since(died));
    }
}

#[tokio::test]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn what_the_catalogue_does_not_take_is_refused_with_its_reason() {
    let agent = Agent::start().await;
    let endpoint = Endpoint::new(([127, 0, 0, 1], 1).into());
    for (key, value, why) in [
        ("mesh-id", "1".to_owned(), "the mesh's own"),
        ("a b", "1".to_owned(), "contains invalid characters"),
        ("long", "x".repeat(600), "Couldn't load metadata pair"),
    ] {
        let endpoint = endpoint.clone().with_metadata(key, &value);
        let refused = agent
            .consul()
            .register(Instance::new(orders(), endpoint))
            .await;
        let error = chain(&refused.unwrap_err());
        assert!(error.contains(why), "{error}");
        assert!(error.len() < 500, "{error}");
    }
}
