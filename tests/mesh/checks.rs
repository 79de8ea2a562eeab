//! Endpoints that are asked whether they are well.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use tokio::net::TcpListener;
use tower_mesh::{
    Config, Endpoint, Mesh, Policy,
    discovery::Static,
    status::{CheckStatus, EndpointStatus},
};

use crate::{
    reload::Backend,
    support::{Server, answer, dead_endpoint, name, until},
};

/// How a server is: its health path says it first, its other paths follow when they are told to.
#[derive(Clone, Default)]
struct State(Arc<AtomicU8>);

const WELL: u8 = 0;
/// Its health path answers 503, or `NOT_SERVING`.
const SICK: u8 = 1;
/// And all that is called fails.
const BROKEN: u8 = 2;

impl State {
    fn set(&self, state: u8) {
        self.0.store(state, Ordering::SeqCst);
    }

    fn is(&self, state: u8) -> bool {
        self.0.load(Ordering::SeqCst) >= state
    }

    async fn serve(&self) -> Server {
        let this = self.clone();
        Server::start(move |request: Request| {
            let this = this.clone();
            async move {
                match request.uri().path() {
                    "/healthz" if this.is(SICK) => answer(503, "sick"),
                    "/grpc.health.v1.Health/Check" => serving(!this.is(SICK)),
                    "/" if this.is(BROKEN) => answer(500, "broken"),
                    "/other" => answer(404, "what?"),
                    _ => answer(200, "well"),
                }
            }
        })
        .await
    }
}

/// What gRPC's health service answers.
fn serving(is_serving: bool) -> Response {
    let status = if is_serving { 1 } else { 2 };
    let frame = [0, 0, 0, 0, 2, 8, status];
    let trailers = async {
        let status = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
        Some(Ok(HeaderMap::from_iter(status)))
    };
    let body = Full::from(frame.to_vec()).with_trailers(trailers);
    Response::builder()
        .header("content-type", "application/grpc")
        .body(Body::new(body))
        .unwrap()
}

fn config(text: &str) -> Config {
    Config::parse(text).unwrap()
}

async fn mesh(services: Static, text: &str) -> Mesh {
    let mesh = Mesh::builder("shop").discovery(services);
    mesh.config(config(text)).start().await.unwrap()
}

/// The nth endpoint of the service, as the status has it.
fn endpoint(mesh: &Mesh, service: &str, nth: usize) -> Option<EndpointStatus> {
    let mut services = mesh.status().services.into_iter();
    let service = services.find(|found| found.name == service)?;
    service.endpoints.into_iter().nth(nth)
}

fn check(mesh: &Mesh, service: &str) -> Option<CheckStatus> {
    endpoint(mesh, service, 0)?.check
}

fn is(mesh: &Mesh, service: &str, state: &str) -> bool {
    check(mesh, service).is_some_and(|check| check.state == state)
}

#[tokio::test]
async fn a_server_whose_health_path_turns_503_is_taken_out_before_any_call_fails_and_comes_back() {
    let states = [State::default(), State::default(), State::default()];
    let mut servers = Vec::new();
    for state in &states {
        servers.push(state.serve().await);
    }
    let endpoints: Vec<_> = servers.iter().map(Server::endpoint).collect();
    let mesh = mesh(
        Static::new().service(name("orders"), endpoints),
        // What fails is seen: nothing is tried again.
        "[services.orders]
         balance = \"round-robin\"
         retry.attempts = 1
         health = { check = \"http\", path = \"/healthz\", interval = \"5ms\" }",
    )
    .await;
    let orders = mesh.service("orders").unwrap();
    let first = || endpoint(&mesh, "orders", 0);
    let call = async || {
        let answer = orders.get("/").await.unwrap();
        assert_eq!(answer.status(), 200);
        drop(answer);
    };
    call().await;
    until("it is found well", || is(&mesh, "orders", "healthy")).await;

    states[0].set(SICK);
    while first().unwrap().gate != "shut by health" {
        call().await;
    }
    states[0].set(BROKEN);
    for _ in 0..100 {
        call().await;
    }
    let out = first().unwrap();
    let error = out.check.unwrap().last_error.unwrap();
    assert_eq!((out.failures, &*error), (0, "it answered 503"));
    let text = mesh.status().to_string();
    assert!(text.contains("shut by health; unhealthy as of "), "{text}");
    assert!(text.contains(" ago: it answered 503"), "{text}");

    states[0].set(WELL);
    let before = out.attempts;
    while first().unwrap().attempts == before {
        call().await;
    }
    assert_eq!(first().unwrap().gate, "open");
}

#[tokio::test]
async fn several_services_are_asked_at_once_each_in_its_way_and_each_answer_has_its_age() {
    let (well, sick) = (State::default(), State::default());
    sick.set(SICK);
    let (well, sick) = (well.serve().await, sick.serve().await);
    let nobody = dead_endpoint().await;
    let static_ = Static::new()
        .service(name("http"), [well.endpoint()])
        .service(name("http-sick"), [sick.endpoint()])
        .service(name("grpc"), [well.endpoint()])
        .service(name("grpc-sick"), [sick.endpoint()])
        .service(name("tcp"), [well.endpoint()])
        .service(name("tcp-dead"), [nobody])
        .service(name("unasked"), [well.endpoint()]);
    let mesh = mesh(
        static_,
        "[defaults]
         health = { check = \"http\", path = \"/healthz\", interval = \"5ms\" }
         [services]
         grpc.health.check = \"grpc\"
         http-sick.health.interval = \"1h\"
         grpc-sick.health = { check = \"grpc\", interval = \"1h\" }
         tcp.health.check = \"tcp\"
         tcp-dead.health.check = \"tcp\"
         unasked.health.check = \"none\"",
    )
    .await;
    let services = [
        ("http", "healthy", ""),
        ("http-sick", "unhealthy", "it answered 503"),
        ("grpc", "healthy", ""),
        ("grpc-sick", "unhealthy", "it says that it is not serving"),
        ("tcp", "healthy", ""),
        ("tcp-dead", "unhealthy", "refused"),
    ];
    let _unasked = mesh.service("unasked").unwrap();
    for (service, ..) in services {
        mesh.service(service).unwrap();
    }
    for (service, state, says) in services {
        until(service, || is(&mesh, service, state)).await;
        let check = check(&mesh, service).unwrap();
        assert!(check.age.is_some() && check.took.is_some(), "{check:?}");
        let error = check.last_error.clone().unwrap_or_default();
        assert!(error.contains(says), "{check:?}");
        // What an endpoint says of itself is believed at once, a connection that is refused the third time.
        match says {
            "" => assert!(check.checks >= 1 && check.failures == 0, "{check:?}"),
            "refused" => assert!(check.checks >= 3, "{check:?}"),
            _ => assert_eq!((check.checks, check.failures), (1, 1), "{check:?}"),
        }
    }
    assert_eq!(check(&mesh, "unasked").map(|check| check.state), None);
    let json = serde_json::to_value(mesh.status()).unwrap();
    let ages = (json["services"].as_array().unwrap().iter())
        .filter_map(|service| service["endpoints"][0]["check"]["age_ms"].as_f64());
    assert_eq!(ages.count(), services.len(), "{json}");
    let checks = check(&mesh, "tcp-dead").unwrap().checks;
    until("it goes on being asked", || {
        check(&mesh, "tcp-dead").unwrap().checks > checks
    })
    .await;
}

#[tokio::test]
async fn after_a_shutdown_nobody_is_asked_and_nothing_runs() {
    let (server, hanging) = (State::default().serve().await, Server::hanging().await);
    let services = Static::new()
        .service(name("orders"), [server.endpoint()])
        .service(name("stock"), [hanging.endpoint()]);
    let mesh = mesh(
        services,
        "[defaults.health]
         check = \"http\"
         path = \"/healthz\"
         interval = \"1ms\"
         time_limit = \"1h\"",
    )
    .await;
    // Their user keeps one of them.
    let _orders = mesh.service("orders").unwrap();
    mesh.service("stock").unwrap();
    until("both are asked", || hanging.hits() > 0 && server.hits() > 3).await;
    mesh.shutdown(Duration::from_secs(1)).await.unwrap();
    assert_eq!(mesh.tasks(), 0);
    // The last check may have been on its way.
    let (asked, tasks) = (server.hits(), tokio::runtime::Handle::current().metrics());
    until("connections have ended", || {
        // The two that listen.
        tasks.num_alive_tasks() == 2
    })
    .await;
    assert!(server.hits() <= asked + 1);
    assert_eq!(hanging.hits(), 1);
}

#[tokio::test]
async fn checks_follow_a_reload_and_nobody_stays_out_for_what_is_no_longer_asked() {
    let state = State::default();
    state.set(SICK);
    let server = state.serve().await;
    let services = Static::new().service(name("orders"), [server.endpoint()]);
    let text = |health: &str| format!("[services.orders]\nhealth = {{ {health} }}");
    let mesh = mesh(services, &text("check = \"none\"")).await;
    let orders = mesh.service("orders").unwrap();
    orders.get("/").await.unwrap();
    assert!(check(&mesh, "orders").is_none());
    assert_eq!(server.hits(), 1);

    let sick = "check = \"http\", path = \"/healthz\", interval = \"5ms\"";
    let changes = mesh.reload(&config(&text(sick))).unwrap().to_string();
    assert!(
        changes.contains("services.orders.health.path: none -> /healthz\n"),
        "{changes}"
    );
    until("it is out", || is(&mesh, "orders", "unhealthy")).await;

    mesh.reload(&config(&text("check = \"none\""))).unwrap();
    let out = endpoint(&mesh, "orders", 0).unwrap();
    assert_eq!(out.gate, "open");
    assert!(out.check.is_none());

    mesh.reload(&config(&text(sick))).unwrap();
    until("it is out again", || is(&mesh, "orders", "unhealthy")).await;
    let port = "check = \"tcp\", interval = \"5ms\"";
    mesh.reload(&config(&text(port))).unwrap();
    until("its port answers", || is(&mesh, "orders", "healthy")).await;
    let tasks = mesh.tasks();
    let other = "check = \"http\", path = \"/other\", interval = \"5ms\"";
    mesh.reload(&config(&text(other))).unwrap();
    until("it is asked for the other path", || {
        let check = check(&mesh, "orders").unwrap();
        check.last_error.as_deref() == Some("it answered 404")
    })
    .await;
    until("the checks before it have ended", || mesh.tasks() <= tasks).await;
}

/// Paused time: what is called has no socket, what is asked has.
#[tokio::test(start_paused = true)]
async fn who_was_ejected_for_its_calls_is_not_let_back_in_because_its_port_answers() {
    let mut ports = Vec::new();
    for _ in 0..3 {
        ports.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let endpoints = ports
        .iter()
        .map(|port| Endpoint::new(port.local_addr().unwrap()));
    let bad = ports[0].local_addr().unwrap();
    let mut policy = Policy::default();
    policy.balance = tower_mesh::balance::Strategy::RoundRobin;
    policy.breaker.consecutive_failures = std::num::NonZeroU32::MAX;
    policy.breaker.failure_rate = tower_mesh::core::Ratio::percent(100);
    policy.breaker.open_for = Duration::from_millis(1);
    policy.breaker.max_open = Duration::from_millis(1);
    policy.health.check = tower_mesh::Check::Tcp;
    policy.health.interval = Duration::from_secs(1);
    let mesh = Mesh::builder("shop")
        .discovery(Static::new().service(name("orders"), endpoints))
        .defaults(policy)
        .start()
        .await
        .unwrap();
    let (well, broken) = (Backend::default(), Backend::default());
    broken.fail();
    let (well, broken) = (well.client(), broken.client());
    let orders = mesh.layer("orders").unwrap();
    let orders = orders.over(move |endpoint: &Endpoint| match endpoint.address() == bad {
        true => broken(endpoint),
        false => well(endpoint),
    });
    for _ in 0..2_500 {
        let _ = orders.get("/").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let endpoint = endpoint(&mesh, "orders", 0).unwrap();
    let check = endpoint.check.unwrap();
    assert!(check.checks > 15 && check.failures == 0, "{check:?}");
    assert_eq!(endpoint.gate, "shut by outlier ejection");
    assert_eq!(endpoint.ejected.unwrap().times, 1);
}
