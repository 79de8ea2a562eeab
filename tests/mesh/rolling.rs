//! Three servers are restarted, one after the other, under load: no call fails, and none is made twice.
//!
//! With `cargo xtask test --long` it is what a deployment is: the propagation that a server has unless told otherwise, and
//! twelve restarts; else three of them with less. The figures are printed by
//! `TOWER_MESH_LONG=1 cargo test --release -p tower-mesh-tests --test mesh rolling -- --nocapture`.

use std::{
    collections::HashMap,
    future::{Future, IntoFuture},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, extract::State, routing::post};
use http::Request;
use http_body_util::BodyExt;
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::MissedTickBehavior,
};
use tower::BoxError;
use tower_mesh::{
    Body, Endpoint, Instance, MemoryRegistry, Mesh, Policy, ServeError,
    http::{HttpEndpoints, Protocol},
};

use crate::support::{name, until};

/// 500 requests a second, whether earlier ones have been answered or not; asserted as their number.
const EVERY: Duration = Duration::from_millis(2);
const WORK: Duration = Duration::from_millis(20);
/// How many servers there are.
const SERVERS: usize = 3;

/// How often it is restarted and for how long each goes on serving then.
struct Plan {
    rounds: usize,
    propagation: Duration,
}

impl Plan {
    fn from_env() -> Self {
        match std::env::var_os("TOWER_MESH_LONG") {
            Some(_) => Self {
                rounds: 4,
                propagation: Duration::from_secs(5),
            },
            None => Self {
                rounds: 1,
                propagation: Duration::from_secs(1),
            },
        }
    }
}

/// Which orders were taken, and by which server.
#[derive(Clone, Default)]
struct Orders(Arc<Mutex<HashMap<u64, Vec<usize>>>>);

impl Orders {
    fn taken_by(&self, server: usize) -> usize {
        let orders = self.0.lock().unwrap();
        orders
            .values()
            .flatten()
            .filter(|by| **by == server)
            .count()
    }

    /// Those that were taken more than once.
    fn twice(&self) -> Vec<u64> {
        let orders = self.0.lock().unwrap();
        let twice = orders.iter().filter(|(_, by)| by.len() > 1);
        twice.map(|(id, _)| *id).collect()
    }
}

async fn take(State((orders, server)): State<(Orders, usize)>, id: String) -> String {
    let id = id.parse().unwrap();
    orders.0.lock().unwrap().entry(id).or_default().push(server);
    tokio::time::sleep(WORK).await;
    format!("{id} taken")
}

/// A server of the mesh in a process of its own, as far as the mesh is concerned.
struct Server {
    address: SocketAddr,
    end: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    async fn start(
        number: usize,
        address: SocketAddr,
        registry: &MemoryRegistry,
        orders: &Orders,
        plan: &Plan,
    ) -> Self {
        let mesh = Mesh::builder("orders")
            .discovery(registry.clone())
            .registry(registry.clone())
            .start()
            .await
            .unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new()
            .route("/orders", post(take))
            .with_state((orders.clone(), number))
            .layer(mesh.server_layer());
        let (end, told) = oneshot::channel();
        let serve = mesh
            .serve(listener, app)
            .register(Instance::new(name("orders"), Endpoint::new(address)))
            .propagation(plan.propagation)
            .until(async {
                let _ = told.await;
            });
        Self {
            address,
            end,
            ended: tokio::spawn(serve.into_future()),
        }
    }

    async fn end(self) -> SocketAddr {
        self.end.send(()).unwrap();
        self.ended.await.unwrap().unwrap();
        self.address
    }
}

/// Replaces each server in turn: every second one comes back at its address, as a service of systemd does, the others at a
/// new one, as a pod does.
async fn restart_all(
    mut servers: Vec<Server>,
    registry: &MemoryRegistry,
    orders: &Orders,
    plan: &Plan,
) -> Vec<Server> {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    for restart in 0..plan.rounds * SERVERS {
        let address = servers.remove(0).end().await;
        let address = if restart % 2 == 0 { address } else { any };
        let number = SERVERS + restart;
        servers.push(Server::start(number, address, registry, orders, plan).await);
        until("the new one is called", || orders.taken_by(number) > 0).await;
    }
    servers
}

/// What a caller saw.
#[derive(Default)]
struct Figures {
    failed: Vec<String>,
    /// Of those that did not fail.
    took: Vec<Duration>,
    sent_for: Duration,
    /// How many the schedule has in that time.
    due: u64,
}

/// How many requests the schedule has until `elapsed`.
fn due(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_nanos() / EVERY.as_nanos()).unwrap() + 1
}

impl Figures {
    fn add(&mut self, answer: Result<Duration, BoxError>) {
        match answer {
            Ok(took) => self.took.push(took),
            Err(error) => self.failed.push(format!("{error:?}")),
        }
    }

    fn print(&mut self, restarts: usize) {
        self.took.sort();
        let at = |share: f64| self.took[((self.took.len() - 1) as f64 * share) as usize];
        let calls = self.took.len() + self.failed.len();
        println!(
            "{restarts} restarts, {calls} calls, {:.0} a second, {} failed; p50 {:?}, p99 {:?}, slowest {:?}, of which {WORK:?} are work",
            calls as f64 / self.sent_for.as_secs_f64(),
            self.failed.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

/// Sends orders until `done` is there, and then those that were due by then.
async fn orders_until<T, F>(
    send: impl Fn(Request<Body>) -> F,
    done: impl Future<Output = T>,
) -> (T, Figures)
where
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let mut done = std::pin::pin!(done);
    // Twice as often as orders are due: a machine that was away makes up for what it has missed, and not all at once.
    let mut ticks = tokio::time::interval(EVERY / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let begun = Instant::now();
    let (mut calls, mut figures) = (JoinSet::new(), Figures::default());
    let (mut sent, mut over) = (0, None);
    loop {
        tokio::select! {
            biased;
            done = &mut done, if over.is_none() => {
                figures.sent_for = begun.elapsed();
                figures.due = due(figures.sent_for);
                over = Some(done);
            }
            Some(answer) = calls.join_next() => figures.add(answer.unwrap()),
            _ = ticks.tick() => match &over {
                Some(_) if sent == figures.due => break,
                None if sent == due(begun.elapsed()) => {}
                _ => {
                    let request = Request::post("/orders").body(Body::from(sent.to_string()));
                    let (call, since) = (send(request.unwrap()), Instant::now());
                    calls.spawn(async move { call.await.map(|()| since.elapsed()) });
                    sent += 1;
                }
            },
        }
    }
    while let Some(answer) = calls.join_next().await {
        figures.add(answer.unwrap());
    }
    (over.expect("the loop ends after it"), figures)
}

async fn rolling_restart(protocol: Protocol) {
    let (registry, orders, plan) = (MemoryRegistry::new(), Orders::default(), Plan::from_env());
    let mut servers = Vec::new();
    for number in 0..SERVERS {
        let any = ([127, 0, 0, 1], 0).into();
        servers.push(Server::start(number, any, &registry, &orders, &plan).await);
    }
    let mut policy = Policy::default();
    // Against hanging only: how fast the machine is shall not decide.
    policy.timeout = Duration::from_secs(60);
    policy.retry.per_try_timeout = None;
    let mesh = Mesh::builder("shop").discovery(registry.clone());
    let mesh = mesh.defaults(policy).start().await.unwrap();
    let connect = HttpEndpoints::new(|task| drop(tokio::spawn(task))).protocol(protocol);
    let client = mesh.layer("orders").unwrap().over(connect);
    let send = move |request| {
        let client = client.clone();
        async move {
            let response = client.send(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            match status.is_success() && body.ends_with(b" taken") {
                true => Ok(()),
                false => Err(BoxError::from(format!("{status}: {body:?}"))),
            }
        }
    };
    let restarts = restart_all(servers, &registry, &orders, &plan);
    let (servers, mut figures) = orders_until(send, restarts).await;
    figures.print(plan.rounds * SERVERS);
    assert_eq!(figures.failed, [""; 0]);
    assert_eq!(orders.twice(), [0; 0], "sent twice");
    let taken = orders.0.lock().unwrap().len();
    assert_eq!(taken, figures.took.len());
    // 500 for each second that it took, however busy the machine was.
    assert_eq!(u64::try_from(taken).unwrap(), figures.due);
    for server in servers {
        server.end().await;
    }
    mesh.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_are_restarted_under_500_posts_a_second_and_none_fails_or_is_made_twice() {
    rolling_restart(Protocol::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_are_restarted_under_500_posts_a_second_over_http2_and_none_fails_or_is_made_twice()
 {
    rolling_restart(Protocol::Http2).await;
}
