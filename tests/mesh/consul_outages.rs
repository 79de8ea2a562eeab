//! Bad days of a real agent, under load: no caller notices them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http_body_util::BodyExt;
use tower_mesh::{Config, Instance, Mesh, MeshService, Status, core::Clock};

use crate::{
    agent::{Agent, as_long_as, request},
    proxy::Proxy,
    support::{Server, name, until},
};

/// A mesh on the agent that is reached at `port`.
pub(crate) fn config(port: u16, more: &str) -> Config {
    let text = format!(
        "service = \"shop\"\n[discovery]\nkind = \"consul\"\n{more}\n[discovery.consul]\naddress = \"127.0.0.1:{port}\"\nwait = \"2s\"\n"
    );
    Config::parse(&text).unwrap()
}

pub(crate) async fn mesh(port: u16) -> Mesh {
    let mesh = Mesh::builder("").config(config(port, ""));
    mesh.start().await.unwrap()
}

/// A call whose answer is read to its end.
pub(crate) async fn call(orders: &MeshService) -> Result<(), String> {
    let response = orders
        .get("/")
        .await
        .map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    let body = response.into_body().collect().await;
    match body {
        Ok(_) if status == 200 => Ok(()),
        Ok(_) => Err(status.to_string()),
        Err(error) => Err(format!("{error:?}")),
    }
}

/// Callers that call without a pause until it is dropped.
pub(crate) struct Load(Arc<Calls>);

#[derive(Default)]
struct Calls {
    over: AtomicBool,
    answered: AtomicU64,
    failed: std::sync::Mutex<Vec<String>>,
}

impl Load {
    pub(crate) fn on(orders: &MeshService) -> Self {
        let calls = Arc::<Calls>::default();
        for _ in 0..4 {
            let (orders, calls) = (orders.clone(), Arc::clone(&calls));
            tokio::spawn(async move {
                while !calls.over.load(Ordering::SeqCst) {
                    if let Err(error) = call(&orders).await {
                        calls.failed.lock().unwrap().push(error);
                    }
                    calls.answered.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
        }
        Self(calls)
    }

    pub(crate) fn answered(&self) -> u64 {
        self.0.answered.load(Ordering::SeqCst)
    }

    /// Waits until the calls that are under way now have ended.
    pub(crate) async fn turn_over(&self) {
        let enough = self.answered() + 20;
        until("calls go on", || self.answered() >= enough).await;
    }

    pub(crate) fn assert_none_failed(&self) {
        let failed = self.0.failed.lock().unwrap();
        let first: Vec<_> = failed.iter().take(3).collect();
        assert!(failed.is_empty(), "{} failed, {first:#?}", failed.len());
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

/// Three servers, and the mesh that keeps them registered.
async fn servers(agent: &Agent, ttl: Option<Duration>) -> (Vec<Server>, Mesh) {
    let there = mesh(agent.port()).await;
    let mut servers = Vec::new();
    for _ in 0..3 {
        let server = Server::answering(200, "here").await;
        let instance = Instance::new(name("orders"), server.endpoint());
        let instance = match ttl {
            Some(ttl) => instance.with_ttl(ttl),
            None => instance,
        };
        there.register(instance).await.unwrap();
        servers.push(server);
    }
    (servers, there)
}

async fn ready(here: &Mesh, endpoints: usize) -> MeshService {
    let orders = here.service("orders").unwrap();
    call(&orders).await.unwrap();
    until("all are found", || found(&here.status()) == endpoints).await;
    orders
}

fn found(status: &Status) -> usize {
    status.services[0].endpoints.len()
}

/// Answered, and about all that are there.
fn is_well(status: &Status) -> bool {
    let discovery = &status.services[0].discovery;
    !discovery.suspect && discovery.error.is_none() && found(status) == 3
}

fn outage() -> Duration {
    as_long_as(Duration::from_secs(60), Duration::from_secs(3))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn callers_notice_nothing_of_an_agent_that_dies_and_comes_back_without_its_state() {
    let mut agent = Agent::start().await;
    let (_servers, there) = servers(&agent, Some(Duration::from_secs(9))).await;
    let here = mesh(agent.port()).await;
    let load = Load::on(&ready(&here, 3).await);
    agent.stop();
    let away = outage();
    tokio::time::sleep(away).await;
    let discovery = here.status().services[0].discovery.clone();
    let error = discovery.error.as_deref().expect("the status says why");
    assert!(error.contains("orders"), "{error}");
    // The last answer was given before the agent stopped, and the first error was quick.
    assert!(discovery.age.unwrap() >= away, "{:?}", discovery.age);
    assert!(discovery.failing.unwrap() > away / 2, "{discovery:?}");
    load.assert_none_failed();

    agent.lose_state().await;
    until("the instances are known again", || is_well(&here.status())).await;
    assert_eq!(here.status().services[0].discovery.failing, None);
    load.turn_over().await;
    load.assert_none_failed();
    println!("{} calls, an outage of {away:?}", load.answered());
    drop(load);
    for mesh in [here, there] {
        mesh.shutdown(Duration::from_secs(5)).await.unwrap();
        assert_eq!(mesh.tasks(), 0);
    }
}

/// All heartbeats are late when it comes to itself, so for a moment it calls everybody critical.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn callers_notice_nothing_of_an_agent_that_hangs_and_comes_to_itself() {
    let agent = Agent::start().await;
    let ttl = as_long_as(Duration::from_secs(9), Duration::from_secs(1));
    let (_servers, there) = servers(&agent, Some(ttl)).await;
    let here = mesh(agent.port()).await;
    let load = Load::on(&ready(&here, 3).await);
    agent.pause();
    let away = outage();
    tokio::time::sleep(away).await;
    let discovery = here.status().services[0].discovery.clone();
    assert!(discovery.age.unwrap() + Duration::from_secs(3) >= away);
    agent.resume();
    // The same watch goes on.
    let another = Server::answering(200, "here").await;
    let instance = Instance::new(name("orders"), another.endpoint());
    there.register(instance).await.unwrap();
    until("it is known", || found(&here.status()) == 4).await;
    until("it is called", || another.hits() > 0).await;
    load.turn_over().await;
    load.assert_none_failed();
}

/// Ten minutes pass on the mesh's clock alone, a second at a time.
struct TenMinutes {
    failed: Vec<String>,
    requests: u64,
    status: Status,
}

impl TenMinutes {
    async fn of(begin: impl AsyncFnOnce(&Agent, &Proxy)) -> Self {
        let agent = Agent::start().await;
        let proxy = Proxy::before(agent.port()).await;
        let (_servers, there) = servers(&agent, None).await;
        let (clock, time) = Clock::manual();
        let here = Mesh::builder("").config(config(proxy.address().port(), ""));
        let here = here.clock(clock).start().await.unwrap();
        let orders = ready(&here, 3).await;
        begin(&agent, &proxy).await;
        let before = proxy.requests();
        let mut failed = Vec::new();
        for second in 0..600 {
            time.advance(Duration::from_secs(1));
            if let Err(error) = call(&orders).await {
                failed.push(format!("{second}: {error}"));
            }
            // What is on its way to the agent may arrive.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let requests = proxy.requests() - before;
        let status = here.status();
        // Then it is mended, and nobody has to start again.
        proxy.mend();
        proxy.slow_down(Duration::ZERO);
        for _ in 0..3_000 {
            if is_well(&here.status()) {
                break;
            }
            time.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(is_well(&here.status()), "{}", here.status());
        drop(there);
        Self {
            failed,
            requests,
            status,
        }
    }

    fn assert_held(self, least_age: Duration) {
        let Self {
            failed,
            requests,
            status,
        } = self;
        assert!(failed.is_empty(), "{failed:#?}");
        let discovery = &status.services[0].discovery;
        assert!(discovery.error.is_some(), "{discovery:?}");
        assert!(discovery.age.unwrap() >= least_age, "{discovery:?}");
        assert_eq!(found(&status), 3);
        println!("{requests} requests in ten minutes");
        assert!((10..=600).contains(&requests), "{requests} requests");
    }
}

const TEN_MINUTES: Duration = Duration::from_secs(600);

/// Scenario 28 of reference/mesh.md, and S6 of reference/performance.md (d).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn an_agent_that_fails_each_request_for_ten_minutes_fails_no_call_and_is_not_pestered() {
    let passed = TenMinutes::of(async |_, proxy| proxy.fail()).await;
    passed.assert_held(TEN_MINUTES);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn an_agent_that_is_silent_for_ten_minutes_fails_no_call_and_is_not_pestered() {
    let passed = TenMinutes::of(async |_, proxy| proxy.slow_down(Duration::from_secs(3600))).await;
    // An answer that was under way at first is the last one.
    passed.assert_held(TEN_MINUTES - Duration::from_secs(5));
}

/// A catalogue that names one of fifty, whose others still answer: it is not believed at once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn most_endpoints_that_vanish_at_once_are_held_for_a_while_and_then_let_go() {
    let agent = Agent::start().await;
    let node = r#"{"Node":"elsewhere","Address":"127.0.0.1"}"#;
    let put = async |path: &str, body: &str| {
        let done = request(agent.port(), "PUT", path, "", body).await.unwrap();
        assert!(done.starts_with("HTTP/1.1 200"), "{done}");
    };
    put("/v1/catalog/register", node).await;
    let all = |verb: &str, range: std::ops::Range<u8>| {
        let ops = range.map(|n| {
            let service = serde_json::json!({
                "ID": format!("orders-{n}"), "Service": "orders", "Address": format!("10.0.0.{n}"), "Port": 80,
            });
            serde_json::json!({ "Service": { "Verb": verb, "Node": "elsewhere", "Service": service } })
        });
        serde_json::to_string(&ops.collect::<Vec<_>>()).unwrap()
    };
    put("/v1/txn", &all("set", 0..50)).await;
    let (clock, time) = Clock::manual();
    let here = Mesh::builder("").config(config(agent.port(), ""));
    let here = here.clock(clock).start().await.unwrap();
    let _orders = here.service("orders").unwrap();
    until("all are found", || {
        here.status()
            .services
            .first()
            .is_some_and(|s| s.endpoints.len() == 50)
    })
    .await;
    put("/v1/txn", &all("delete", 1..50)).await;
    until("it is suspect", || {
        here.status().services[0].discovery.suspect
    })
    .await;
    assert_eq!(found(&here.status()), 50, "they are held");
    time.advance(Duration::from_secs(31));
    until("it is believed", || found(&here.status()) == 1).await;
    assert!(!here.status().services[0].discovery.suspect);
}

/// Scenario 33 of reference/mesh.md: what a process has learned is there for the next one, though the agent is not.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Consul: `cargo xtask servers`"]
async fn a_process_that_starts_while_the_agent_is_away_knows_who_is_there_and_who_fails() {
    let mut agent = Agent::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("memory");
    let more = format!(
        "remember = {file:?}\n[defaults]\npanic = {{ min_healthy = 0 }}\nbreaker = {{ open_for = \"60s\", consecutive_failures = 1 }}"
    );
    let start = async |port| {
        let mesh = Mesh::builder("").config(config(port, &more));
        mesh.start().await.unwrap()
    };
    let (_servers, there) = servers(&agent, None).await;
    let bad = Server::answering(500, "ill").await;
    let instance = Instance::new(name("orders"), bad.endpoint());
    there.register(instance).await.unwrap();
    let gate = |mesh: &Mesh| {
        let services = mesh.status().services;
        let mut endpoints = services.into_iter().flat_map(|service| service.endpoints);
        let bad =
            endpoints.find(|endpoint| endpoint.address == bad.endpoint().address().to_string());
        bad.map(|endpoint| endpoint.gate)
    };
    let before = start(agent.port()).await;
    let orders = before.service("orders").unwrap();
    while gate(&before).is_none_or(|gate| gate == "open") {
        let _ = call(&orders).await;
    }
    before.shutdown(Duration::from_secs(5)).await.unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    for what in ["latency_us", "breaker", "confirmed"] {
        assert!(text.contains(what), "no {what} in {text}");
    }
    let (hits, port) = (bad.hits(), agent.port());
    agent.stop();

    let after = start(port).await;
    let orders = after.service("orders").unwrap();
    for _ in 0..50 {
        call(&orders).await.unwrap();
    }
    assert_eq!(bad.hits(), hits, "its breaker is still open");
    let gate = gate(&after).unwrap();
    assert_ne!(gate, "open");
    let status = after.status();
    assert!(
        status.services[0].discovery.remembered.is_some(),
        "{status}"
    );
}
