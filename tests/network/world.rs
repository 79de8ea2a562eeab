//! Hosts that serve with axum, a client that calls them through a mesh, and what became of its calls.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, routing::get};
use http::Uri;
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::{Service, ServiceBuilder};
use tower_mesh::{
    Body, Config, Endpoint, Mesh, ServiceName, core::Rng, discovery::Static, status::Status,
};
use turmoil::{Sim, net};

pub const S: Duration = Duration::from_secs(1);
const PORT: u16 = 80;
/// The three servers.
pub const SERVERS: [&str; 3] = ["orders-1", "orders-2", "orders-3"];
pub const CLIENT: &str = "shop";

/// The default policy.
pub const DEFAULTS: &str = "";
/// A mesh without what it has against servers that fail.
pub const BARE: &str = "[defaults]
    balance = \"round-robin\"
    retry.attempts = 1
    breaker = { consecutive_failures = 1000000, failure_rate = 1.0 }
    ejection.enabled = false";

/// A call every 20 ms.
const EVERY: Duration = Duration::from_millis(20);

/// What became of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// When it began.
    pub at: Duration,
    pub took: Duration,
    /// Which server has answered, and how often that had been started; or why none has.
    pub answer: Result<String, String>,
}

/// What became of all calls, in the order of their beginnings.
#[derive(Debug)]
pub struct Report {
    pub calls: Vec<Call>,
    /// Connections that each start of a server has accepted.
    pub connections: BTreeMap<String, u64>,
    /// What the mesh said of itself at the end.
    pub status: Status,
}

impl Report {
    fn during(&self, time: Range<u32>) -> impl Iterator<Item = &Call> {
        let time = time.start * S..time.end * S;
        self.calls
            .iter()
            .filter(move |call| time.contains(&call.at))
    }

    /// How many of them nobody has answered.
    pub fn lost(&self, time: Range<u32>) -> usize {
        self.during(time)
            .filter(|call| call.answer.is_err())
            .count()
    }

    /// How many of them this server has answered, or this start of it.
    pub fn answered(&self, time: Range<u32>, by: &str) -> usize {
        self.during(time)
            .filter(|call| call.answer.as_ref().is_ok_and(|text| text.starts_with(by)))
            .count()
    }

    /// How many of them took longer.
    pub fn slower(&self, time: Range<u32>, than: Duration) -> usize {
        self.during(time).filter(|call| call.took > than).count()
    }
}

/// For people, second by second.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.calls.last().map_or(0, |call| call.at.as_secs() + 1);
        for second in 0..seconds as u32 {
            let time = second..second + 1;
            let by = SERVERS.map(|server| self.answered(time.clone(), server));
            let (lost, slow) = (self.lost(time.clone()), self.slower(time, S));
            writeln!(
                f,
                "{second:>3} s: answered {by:?}, lost {lost}, slower than 1 s: {slow}"
            )?;
        }
        writeln!(f, "connections: {:?}\n{}", self.connections, self.status)
    }
}

/// Something that happens to the network after so many seconds.
pub type Event = (u32, fn(&mut Sim<'_>));

/// Three servers, and a client that calls them for `seconds` by `config`, while `events` happen.
pub fn run(config: &'static str, seconds: u32, events: &[Event]) -> Report {
    let mut sim = turmoil::Builder::new()
        .rng_seed(7)
        .tick_duration(Duration::from_millis(5))
        .simulation_duration((seconds + 60) * S)
        .build();
    let connections = Connections::default();
    for name in SERVERS {
        let (connections, starts) = (connections.clone(), Cell::new(0));
        sim.host(name, move || {
            starts.set(starts.get() + 1);
            let start = format!("{name}, start {}", starts.get());
            serve(start, connections.clone())
        });
    }
    let report = Arc::new(Mutex::new(None));
    let to = Arc::clone(&report);
    sim.client(CLIENT, async move {
        let made = call(config, seconds).await?;
        *to.lock().unwrap() = Some(made);
        Ok(())
    });
    let mut events = events.iter().peekable();
    loop {
        while let Some((_, event)) = events.next_if(|(at, _)| sim.elapsed() >= *at * S) {
            event(&mut sim);
        }
        if sim.step().unwrap() {
            break;
        }
    }
    let (calls, status) = report.lock().unwrap().take().unwrap();
    Report {
        calls,
        connections: connections.0.lock().unwrap().clone(),
        status,
    }
}

async fn serve(start: String, connections: Connections) -> turmoil::Result {
    let listener = Listener {
        listener: net::TcpListener::bind(("0.0.0.0", PORT)).await?,
        start: start.clone(),
        connections,
    };
    let app = Router::new().route("/", get(move || async move { start }));
    axum::serve(listener, app).await?;
    Ok(())
}

async fn call(
    config: &str,
    seconds: u32,
) -> Result<(Vec<Call>, Status), Box<dyn std::error::Error>> {
    let endpoints = SERVERS.map(|name| {
        let address = SocketAddr::new(turmoil::lookup(name), PORT);
        Endpoint::new(address).with_id(name)
    });
    let mesh = Mesh::builder(CLIENT)
        .config(Config::parse(config)?)
        .discovery(Static::new().service(ServiceName::new("orders")?, endpoints))
        .rng(Rng::seeded(7))
        .start()
        .await?;
    let client = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(3 * S)
        .build::<_, Body>(Connector);
    let orders = ServiceBuilder::new()
        .layer(mesh.layer("orders")?)
        .service(client);
    let (began, mut calls) = (Instant::now(), JoinSet::new());
    while began.elapsed() < seconds * S {
        let (orders, at) = (orders.clone(), began.elapsed());
        calls.spawn(async move {
            let answer = async {
                let response = orders.get("/").await.map_err(|error| error.to_string())?;
                let body = response.into_body().collect().await;
                let body = body.map_err(|error| error.to_string())?.to_bytes();
                Ok(String::from_utf8_lossy(&body).into_owned())
            };
            let answer = answer.await;
            let took = began.elapsed() - at;
            Call { at, took, answer }
        });
        sleep(EVERY).await;
    }
    let mut calls = calls.join_all().await;
    calls.sort_by_key(|call| call.at);
    let status = mesh.status();
    drop(orders);
    mesh.shutdown(S).await?;
    assert_eq!(mesh.tasks(), 0);
    Ok((calls, status))
}

/// How many connections each start of a server has accepted.
#[derive(Clone, Default)]
struct Connections(Arc<Mutex<BTreeMap<String, u64>>>);

/// What axum listens with.
struct Listener {
    listener: net::TcpListener,
    start: String,
    connections: Connections,
}

impl axum::serve::Listener for Listener {
    type Io = net::TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (net::TcpStream, SocketAddr) {
        loop {
            if let Ok(accepted) = self.listener.accept().await {
                let mut all = self.connections.0.lock().unwrap();
                *all.entry(self.start.clone()).or_default() += 1;
                return accepted;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// What hyper's client connects with.
#[derive(Clone)]
struct Connector;

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let address = uri.authority().map_or("", |authority| authority.as_str());
            let address: SocketAddr = address.parse().map_err(io::Error::other)?;
            let stream = net::TcpStream::connect(address).await?;
            Ok(TokioIo::new(Stream(stream)))
        })
    }
}

/// A connection, as hyper-util wants to hear of it.
struct Stream(net::TcpStream);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, to)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
