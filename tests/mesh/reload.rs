//! Another configuration while the mesh runs: what follows it, what stays, what is refused.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use http_body_util::Full;
use tokio::time::Instant;
use tower::{Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_mesh::{Body, Config, Endpoint, Error, Mesh, MeshService, Policy, discovery::Static};

use crate::support::name;

pub type Client = BoxCloneSyncService<Request<Body>, Response<Full<bytes::Bytes>>, Infallible>;

/// One endpoint, without a socket: time is paused here.
#[derive(Clone, Default)]
pub struct Backend {
    made: Arc<AtomicUsize>,
    fails: Arc<AtomicBool>,
    hangs: Arc<AtomicBool>,
}

impl Backend {
    pub fn client(&self) -> impl Fn(&Endpoint) -> Client + Clone + Send + Sync + use<> {
        let this = self.clone();
        move |_: &Endpoint| {
            this.made.fetch_add(1, Ordering::SeqCst);
            let this = this.clone();
            BoxCloneSyncService::new(service_fn(move |_: Request<Body>| {
                let this = this.clone();
                async move {
                    if this.hangs.load(Ordering::SeqCst) {
                        std::future::pending::<()>().await;
                    }
                    let failed = this.fails.load(Ordering::SeqCst);
                    let mut response = Response::new(Full::from("two books"));
                    *response.status_mut() = if failed { 500 } else { 200 }.try_into().unwrap();
                    Ok(response)
                }
            }))
        }
    }

    pub fn fail(&self) {
        self.fails.store(true, Ordering::SeqCst);
    }

    pub fn hang(&self) {
        self.hangs.store(true, Ordering::SeqCst);
    }

    pub fn serve(&self, mesh: &Mesh) -> MeshService<Client> {
        mesh.layer("orders").unwrap().over(self.client())
    }
}

async fn started(config: &str) -> Mesh {
    let endpoint = Endpoint::new(([127, 0, 0, 1], 80).into());
    Mesh::builder("shop")
        .config(Config::parse(config).unwrap())
        .discovery(Static::new().service(name("orders"), [endpoint]))
        .start()
        .await
        .unwrap()
}

fn config(text: &str) -> Config {
    Config::parse(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_service_with_a_subset_connects_to_that_many_and_a_reload_changes_it() {
    let endpoints = (1..=40).map(|port| Endpoint::new(([127, 0, 0, 1], port).into()));
    let mesh = Mesh::builder("shop")
        .config(config("services.orders.subset.size = 5"))
        .discovery(Static::new().service(name("orders"), endpoints))
        .start()
        .await
        .unwrap();
    let backend = Backend::default();
    let orders = backend.serve(&mesh);
    let calls_and_made = async || {
        for _ in 0..200 {
            orders
                .clone()
                .oneshot(Request::new(Body::empty()))
                .await
                .unwrap();
        }
        backend.made.load(Ordering::SeqCst)
    };
    assert_eq!(calls_and_made().await, 5);
    mesh.reload(&config("services.orders.subset.size = 6"))
        .unwrap();
    assert_eq!(calls_and_made().await, 6, "five of them are the same");
    mesh.reload(&config("")).unwrap();
    assert_eq!(calls_and_made().await, 40);
}

/// How long a call takes that nobody answers.
async fn times_out_after(client: &MeshService<Client>) -> Duration {
    let began = Instant::now();
    let error: Error = client.get("/").await.unwrap_err();
    assert!(error.is_deadline_exceeded(), "{error}");
    began.elapsed()
}

const S: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_client_that_exists_follows_at_its_next_call_and_a_call_in_flight_ends_as_it_began() {
    let mesh = started("[services.orders]\ntimeout = \"8s\"\nretry.attempts = 1").await;
    let backend = Backend::default();
    let orders = backend.serve(&mesh);
    orders.get("/").await.unwrap();
    backend.hangs.store(true, Ordering::SeqCst);
    let (mut before, own) = (orders.clone(), orders.with_timeout(3 * S));
    let in_flight = before.call(Request::new(Body::empty()));
    let began = Instant::now();
    let in_flight =
        tokio::spawn(async move { in_flight.await.map(drop).map_err(|_| began.elapsed()) });

    let changes = mesh
        .reload(&config(
            "[services.orders]\ntimeout = \"1s\"\nretry.attempts = 1",
        ))
        .unwrap();
    assert_eq!(changes.to_string(), "services.orders.timeout: 8s -> 1s\n");
    assert_eq!((changes.revision, mesh.status().config.revision), (2, 2));
    assert_eq!(times_out_after(&orders).await, S);
    assert_eq!(times_out_after(&own).await, 3 * S, "it was set by its user");
    assert_eq!(in_flight.await.unwrap(), Err(8 * S));
    assert_eq!(orders.clone().timeout(), 8 * S, "said as of its last call");
    assert_eq!(backend.made.load(Ordering::SeqCst), 1, "connections stay");
}

#[tokio::test(start_paused = true)]
async fn breakers_follow_with_what_they_have_counted() {
    let mesh = started("[defaults]\nbreaker.consecutive_failures = 9\nretry.attempts = 1").await;
    let backend = Backend::default();
    let orders = backend.serve(&mesh);
    backend.fails.store(true, Ordering::SeqCst);
    let gate = || mesh.status().services[0].endpoints[0].gate.clone();
    for _ in 0..4 {
        orders.get("/").await.unwrap();
    }
    mesh.reload(&config(
        "[defaults]\nbreaker.consecutive_failures = 5\nretry.attempts = 1",
    ))
    .unwrap();
    assert_eq!(gate(), "open");
    orders.get("/").await.unwrap();
    assert_eq!(gate(), "shut by breaker");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_changed_keeps_count_of_calls_that_began_before() {
    let mesh = started("[defaults]\nlimit = { max_in_flight = 2, queue = 1 }").await;
    let backend = Backend::default();
    let orders = backend.serve(&mesh);
    let open = orders.get("/").await.unwrap();
    let held = open.into_body();
    mesh.reload(&config("[defaults]\nlimit.max_in_flight = 1"))
        .unwrap();
    let limit = || mesh.status().services[0].limit.limit;
    assert_eq!(limit(), 1);
    assert_eq!(
        mesh.status().services[0].in_flight,
        1,
        "its body is not read"
    );
    let another = orders.get("/").await.unwrap();
    assert_eq!(mesh.status().services[0].in_flight, 2);
    assert!(orders.get("/").await.unwrap_err().is_overloaded());
    drop((held, another));
    assert_eq!(mesh.status().services[0].in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_invalid_or_takes_a_new_start_is_refused_and_the_settings_in_force_stay() {
    let mesh = started("[defaults]\ntimeout = \"4s\"").await;
    let orders = Backend::default().serve(&mesh);
    let refused = |text: &str| mesh.reload(&config(text)).unwrap_err().to_string();
    for (text, says) in [
        (
            "service = \"another\"",
            "`service`: a mesh that runs cannot change it",
        ),
        (
            "[discovery]\nempty_grace = \"1s\"",
            "`discovery`: a mesh that runs",
        ),
    ] {
        let error = refused(text);
        assert!(error.contains(says), "{error}");
        assert_eq!(mesh.status().config.error.as_ref(), Some(&error));
        assert!(mesh.status().to_string().contains(&error));
    }
    assert_eq!(mesh.status().config.revision, 1);
    assert_eq!(orders.timeout(), 4 * S);
    let would = mesh.check(&config("[defaults]\ntimeout = \"2s\"\nretry.attempts = 2"));
    assert_eq!(
        would.unwrap().to_string(),
        "defaults.timeout: 4s -> 2s\ndefaults.retry.attempts: 3 -> 2\n"
    );
    assert_eq!(mesh.status().config.revision, 1, "asked, not told");
    assert!(
        mesh.reload(&config("[defaults]\ntimeout = \"4s\""))
            .unwrap()
            .is_empty()
    );
    assert_eq!(mesh.status().config.error, None);
}

#[tokio::test(start_paused = true)]
async fn what_was_said_in_code_stays_beneath_and_before_every_configuration() {
    let mut base = Policy::default();
    base.timeout = 7 * S;
    let mut orders = Policy::default();
    orders.timeout = 6 * S;
    let mesh = Mesh::builder("shop")
        .discovery(Static::new())
        .defaults(base)
        .policy("orders", orders)
        .start()
        .await
        .unwrap();
    mesh.reload(&config(
        "[defaults]\nretry.attempts = 2\n[services.orders]\ntimeout = \"1s\"",
    ))
    .unwrap();
    assert_eq!(mesh.service("orders").unwrap().timeout(), 6 * S);
    assert_eq!(mesh.service("users").unwrap().timeout(), 7 * S);
}

#[tokio::test(start_paused = true)]
async fn operations_are_called_as_the_newest_configuration_says() {
    let mesh = started("").await;
    let changes = mesh
        .reload(&config(
            "[services.orders.operations.GetOrder]\nmethod = \"GET\"\nidempotent = true\ntimeout = \"500ms\"",
        ))
        .unwrap();
    assert_eq!(
        changes.to_string(),
        "services.orders.operations.GetOrder: POST -> GET idempotent 500ms\n"
    );
}

#[tokio::test(start_paused = true)]
async fn a_watched_file_is_followed_and_one_that_is_bad_or_gone_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mesh.toml");
    let write = |timeout: &str| {
        let text = format!("service = \"shop\"\n[defaults]\ntimeout = \"{timeout}\"\n");
        // As editors and Kubernetes do it: another file takes the name.
        std::fs::write(dir.path().join("new"), text).unwrap();
        std::fs::rename(dir.path().join("new"), &file).unwrap();
    };
    write("4s");
    let mesh = Mesh::from_file(&file).watch(S).start().await.unwrap();
    let settled = async |revision| {
        while mesh.status().config.revision < revision {
            tokio::time::sleep(S).await;
        }
        mesh.service("orders").unwrap().timeout()
    };
    let refused = async |what: &str| {
        while !mesh
            .status()
            .config
            .error
            .is_some_and(|error| error.contains(what))
        {
            tokio::time::sleep(S).await;
        }
    };
    write("3s");
    assert_eq!(settled(2).await, 3 * S);
    write("0s");
    refused("mesh.toml, line 3, `defaults.timeout`").await;
    std::fs::remove_file(&file).unwrap();
    refused("cannot read it").await;
    assert_eq!(settled(2).await, 3 * S, "the last good one");
    write("2s");
    assert_eq!(settled(3).await, 2 * S);
    assert_eq!(mesh.status().config.error, None);

    mesh.shutdown(S).await.unwrap();
    assert_eq!(mesh.tasks(), 0);
}

#[tokio::test]
async fn a_watch_without_a_file_or_without_an_interval_is_refused() {
    let start = Mesh::builder("shop").watch(S).start().await;
    assert!(start.unwrap_err().to_string().contains("no file to watch"));
    let start = Mesh::builder("shop").watch(Duration::ZERO).start().await;
    assert!(start.unwrap_err().to_string().contains("above zero"));
}

/// Clients that are made while settings change end up with the newest.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_made_during_a_reload_has_its_settings() {
    let mesh = started("").await;
    let timeout = |seconds: u64| config(&format!("[defaults]\ntimeout = \"{seconds}s\""));
    let done = AtomicBool::new(false);
    let clients = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seconds = 1;
            while !done.load(Ordering::SeqCst) {
                seconds += 1;
                mesh.reload(&timeout(seconds)).unwrap();
            }
            mesh.reload(&timeout(1)).unwrap();
        });
        let clients: Vec<_> = (0..50).map(|_| Backend::default().serve(&mesh)).collect();
        done.store(true, Ordering::SeqCst);
        clients
    });
    for mut client in clients {
        std::future::poll_fn(|cx| client.poll_ready(cx))
            .await
            .unwrap();
        assert_eq!(client.timeout(), S);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_alone_that_is_changed_holds_for_calls_that_are_there() {
    let mesh = started("[defaults]\nlimit.max_in_flight = 2").await;
    let orders = Backend::default().serve(&mesh);
    let held = orders.get("/").await.unwrap();
    mesh.reload(&config("[defaults]\nlimit.max_in_flight = 1"))
        .unwrap();
    assert!(orders.get("/").await.unwrap_err().is_overloaded());
    drop(held);
    orders.get("/").await.unwrap();
}

/// Attempts that time out lower the limit of the layers in force, wherever the endpoint was first seen.
#[tokio::test(start_paused = true)]
async fn the_limit_in_force_hears_how_attempts_end() {
    let quick = "timeout = \"1s\"\nretry.attempts = 1\nbreaker.consecutive_failures = 1000";
    let mesh = started(&format!("[defaults]\n{quick}")).await;
    let backend = Backend::default();
    let orders = backend.serve(&mesh);
    orders.get("/").await.unwrap();
    mesh.reload(&config(&format!("[defaults]\n{quick}\nlimit.queue = 1")))
        .unwrap();
    backend.hangs.store(true, Ordering::SeqCst);
    for _ in 0..20 {
        orders.get("/").await.unwrap_err();
    }
    let limit = mesh.status().services[0].limit.clone();
    assert!(limit.lowered > 0 && limit.limit < limit.most, "{limit:?}");
    assert_eq!(limit.most, 1_024);
    let saved = serde_json::to_value(mesh.snapshot()).unwrap();
    assert_eq!(saved["services"]["orders"]["limit"], limit.limit);

    let restored = Mesh::builder("shop")
        .restore(serde_json::from_value(saved).unwrap())
        .start()
        .await
        .unwrap();
    restored.service("orders").unwrap();
    assert_eq!(restored.status().services[0].limit.limit, limit.limit);
}

#[tokio::test(start_paused = true)]
async fn calls_with_the_same_value_in_the_header_of_the_policy_go_to_one_endpoint() {
    let endpoints = (1..=10).map(|port| Endpoint::new(([127, 0, 0, 1], port).into()));
    let mesh = Mesh::builder("shop")
        .config(config("services.orders.hash.header = \"X-User\""))
        .discovery(Static::new().service(name("orders"), endpoints))
        .start()
        .await
        .unwrap();
    let served = Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let orders = mesh.layer("orders").unwrap().over({
        let served = Arc::clone(&served);
        move |endpoint: &Endpoint| {
            let (served, port) = (Arc::clone(&served), endpoint.address().port());
            BoxCloneSyncService::new(service_fn(move |_: Request<Body>| {
                served.lock().unwrap().insert(port);
                async { Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::default())) }
            }))
        }
    });
    // To which endpoints a hundred calls went.
    let reached = async |user: fn(u32) -> String| {
        served.lock().unwrap().clear();
        for nth in 0..100 {
            let request = Request::get("/").header("x-user", user(nth));
            let request = request.body(Body::empty()).unwrap();
            orders.clone().oneshot(request).await.unwrap();
        }
        std::mem::take(&mut *served.lock().unwrap())
    };
    let spread = async |user| reached(user).await.len();
    let one: fn(u32) -> String = |_| "ann".to_owned();
    let many: fn(u32) -> String = |nth| nth.to_string();
    assert_eq!(spread(one).await, 1);
    assert!(spread(many).await > 5);
    mesh.reload(&config("")).unwrap();
    assert!(spread(one).await > 5, "the header says nothing any more");
    // With another seed it is another one.
    let mut homes = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let by_seed = format!("services.orders.hash = {{ header = \"x-user\", seed = {seed} }}");
        mesh.reload(&config(&by_seed)).unwrap();
        let home = reached(one).await;
        assert_eq!(home.len(), 1, "seed {seed}");
        assert_eq!(reached(one).await, home);
        homes.extend(home);
    }
    assert!(homes.len() > 5, "{homes:?}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_takes_as_many_calls_of_one_value_as_the_capacity_of_the_policy_says() {
    for (capacity, reached) in [("1.0", 10), ("2.0", 5), ("100.0", 1)] {
        let endpoints = (1..=10).map(|port| Endpoint::new(([127, 0, 0, 1], port).into()));
        let hash =
            format!("services.orders.hash = {{ header = \"x-user\", capacity = {capacity} }}");
        let mesh = Mesh::builder("shop")
            .config(config(&hash))
            .discovery(Static::new().service(name("orders"), endpoints))
            .start()
            .await
            .unwrap();
        let served = Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
        let orders = mesh.layer("orders").unwrap().over({
            let served = Arc::clone(&served);
            move |endpoint: &Endpoint| {
                let (served, port) = (Arc::clone(&served), endpoint.address().port());
                service_fn(move |_: Request<Body>| {
                    served.lock().unwrap().insert(port);
                    std::future::pending::<Result<Response<Full<bytes::Bytes>>, Infallible>>()
                })
            }
        });
        orders.endpoints().resolved().await;
        // A hundred calls that nobody answers.
        let request = || {
            Request::get("/")
                .header("x-user", "ann")
                .body(Body::empty())
        };
        let mut calls: Vec<_> = (0..100)
            .map(|_| Box::pin(orders.clone().oneshot(request().unwrap())))
            .collect();
        for call in &mut calls {
            assert!(futures_util::poll!(call).is_pending());
        }
        assert_eq!(served.lock().unwrap().len(), reached, "capacity {capacity}");
    }
}
