//! What a mesh costs as it grows: memory, updates and status at so many endpoints and services, and its start.
//!
//! Prints one JSON object. Bytes are exact; times are the best of several, and stay what a machine makes of them.
//!
//! With a number as its argument it looks at so many endpoints and nothing else: for a profiler.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::stream::poll_fn;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tower::{BoxError, ServiceExt};
use tower_mesh::{
    Body, Endpoint, Mesh, MeshService, ServiceName,
    core::{Empties, Resolution, Resolve, Shared, Update, Updates},
};
use tower_mesh_bench::{Inner, Stopwatch, orders};

/// How often what is timed is done.
const TIMES: u32 = 11;

fn main() -> Result<(), BoxError> {
    if let Some(number) = std::env::args().nth(1) {
        println!("{}", at_endpoints(number.parse()?)?);
        return Ok(());
    }
    // The first one in a process measures how fast the processor's counter runs.
    let first = start()?;
    let mut endpoints = Map::new();
    for number in [10, 1_000, 10_000, 100_000] {
        endpoints.insert(number.to_string(), at_endpoints(number)?);
    }
    let mut services = Map::new();
    for number in [10, 1_000] {
        services.insert(number.to_string(), at_services(number)?);
    }
    let grown = json!({
        "first_start_us": micros(first),
        "start_us": micros(best(start)?),
        "endpoints": endpoints,
        "services": services,
    });
    println!("{grown}");
    Ok(())
}

fn start() -> Result<Duration, BoxError> {
    let runtime = runtime()?;
    let watch = Stopwatch::start();
    let mesh = runtime.block_on(Mesh::builder("storefront").start())?;
    let took = watch.elapsed();
    drop(mesh);
    Ok(took)
}

/// One service with `number` endpoints.
fn at_endpoints(number: u32) -> Result<Value, BoxError> {
    let runtime = runtime()?;
    let (source, told) = Told::new();
    // The allocator counts by thread, and this runtime has no other.
    let mut made = None;
    let grown = allocation_counter::measure(|| {
        made = Some(runtime.block_on(Fleet::new(source, told, number)));
    });
    let mut fleet = made.ok_or("it was made")??;
    let patch = best(|| {
        let update = fleet.patch_of_one();
        runtime.block_on(fleet.update(update))
    })?;
    let restate = best(|| {
        let update = fleet.restate();
        runtime.block_on(fleet.update(update))
    })?;
    let replace = best(|| {
        let update = fleet.replace_all();
        runtime.block_on(fleet.update(update))
    })?;
    let status = status_of(&fleet.mesh)?;
    Ok(json!({
        "bytes": grown.bytes_current,
        "patch_us": micros(patch),
        "restate_us": micros(restate),
        "replace_us": micros(replace),
        "status_us": micros(status),
    }))
}

/// How long `mesh` takes to say how it is.
fn status_of(mesh: &Mesh) -> Result<Duration, BoxError> {
    best(|| {
        let watch = Stopwatch::start();
        let status = mesh.status();
        let took = watch.elapsed();
        drop(status);
        Ok(took)
    })
}

/// `number` services with ten endpoints each.
fn at_services(number: u32) -> Result<Value, BoxError> {
    let runtime = runtime()?;
    let mut took = Duration::ZERO;
    let mut made = None;
    let grown = allocation_counter::measure(|| {
        made = Some(runtime.block_on(async {
            let watch = Stopwatch::start();
            let made = many_services(number).await;
            took = watch.elapsed();
            made
        }));
    });
    let (mesh, _services) = made.ok_or("they were made")??;
    let status = status_of(&mesh)?;
    Ok(json!({
        "bytes": grown.bytes_current,
        "ready_us": micros(took),
        "status_us": micros(status),
    }))
}

async fn many_services(number: u32) -> Result<(Mesh, Vec<MeshService<Inner>>), BoxError> {
    let mesh = Mesh::builder("storefront").discovery(Tens).start().await?;
    let mut services = Vec::new();
    for i in 0..number {
        let layer = mesh.layer(&format!("service-{i}"))?;
        services.push(layer.over(Shared::new(Inner::Ready)));
    }
    for service in &services {
        assert_eq!(service.endpoints().resolved().await, Resolution::Found);
        ask(service).await?;
    }
    Ok((mesh, services))
}

/// Ten endpoints, whatever the service.
struct Tens;

impl Resolve for Tens {
    fn resolve(&self, _: &ServiceName) -> Updates {
        let mut first = Some(Ok(Update::Replace(
            (0..10).map(|i| endpoint(i, 1)).collect(),
        )));
        Box::pin(poll_fn(move |_| match first.take() {
            Some(first) => std::task::Poll::Ready(Some(first)),
            None => std::task::Poll::Pending,
        }))
    }

    fn empties(&self) -> Empties {
        Empties::Authoritative
    }

    fn name(&self) -> &'static str {
        "tens"
    }
}

/// A service whose endpoints are told one update after another.
struct Fleet {
    mesh: Mesh,
    service: MeshService<Inner>,
    tell: mpsc::UnboundedSender<Update>,
    number: u32,
    /// Of what moved last.
    port: u16,
    /// Of the others.
    stays: u16,
}

impl Fleet {
    async fn new(
        source: Told,
        tell: mpsc::UnboundedSender<Update>,
        number: u32,
    ) -> Result<Self, BoxError> {
        let mesh = Mesh::builder("storefront")
            .discovery(source)
            .start()
            .await?;
        let service = mesh
            .layer(orders().as_str())?
            .over(Shared::new(Inner::Ready));
        let mut fleet = Self {
            mesh,
            service,
            tell,
            number,
            port: 0,
            stays: 0,
        };
        let update = fleet.replace_all();
        fleet.update(update).await?;
        // What an endpoint has only once it is called belongs to it, too.
        for _ in 0..3 * number {
            ask(&fleet.service).await?;
        }
        Ok(fleet)
    }

    /// All endpoints move elsewhere.
    fn replace_all(&mut self) -> Update {
        self.port += 1;
        self.stays = self.port;
        Update::Replace((0..self.number).map(|i| endpoint(i, self.port)).collect())
    }

    /// All endpoints are named again, of which one has moved elsewhere: what a registry does that sends no differences.
    fn restate(&mut self) -> Update {
        self.port += 1;
        let moved = self.number / 2;
        let port = |i| if i == moved { self.port } else { self.stays };
        Update::Replace((0..self.number).map(|i| endpoint(i, port(i))).collect())
    }

    /// One endpoint moves elsewhere.
    fn patch_of_one(&mut self) -> Update {
        self.port += 1;
        let moved = endpoint(self.number / 2, self.port);
        Update::Patch {
            upsert: vec![moved],
            remove: Vec::new(),
        }
    }

    /// How long the mesh takes until its balancer picks from what it was told.
    async fn update(&mut self, update: Update) -> Result<Duration, BoxError> {
        let endpoints = self.service.endpoints().clone();
        let seen = endpoints.current().revision();
        let watch = Stopwatch::start();
        self.tell.send(update)?;
        while endpoints.current().revision() == seen {
            if watch.elapsed() > Duration::from_secs(10) {
                return Err("the mesh has not taken the update".into());
            }
            tokio::task::yield_now().await;
        }
        // What the driver does after it has published belongs to the update, too.
        tokio::task::yield_now().await;
        let took = watch.elapsed();
        assert_eq!(endpoints.resolution(), Resolution::Found);
        Ok(took)
    }
}

async fn ask(service: &MeshService<Inner>) -> Result<(), BoxError> {
    let request = http::Request::new(Body::empty());
    service.clone().oneshot(request).await?;
    Ok(())
}

fn endpoint(i: u32, port: u16) -> Endpoint {
    let address = SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + i), port));
    Endpoint::new(address).with_id(&i.to_string())
}

/// Reports what it is told, to the first who asks.
struct Told(Arc<Mutex<Option<mpsc::UnboundedReceiver<Update>>>>);

impl Told {
    fn new() -> (Self, mpsc::UnboundedSender<Update>) {
        let (tell, told) = mpsc::unbounded_channel();
        (Self(Arc::new(Mutex::new(Some(told)))), tell)
    }
}

impl Resolve for Told {
    fn resolve(&self, _: &ServiceName) -> Updates {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut told = told.expect("there is one service, looked up once");
        Box::pin(poll_fn(move |cx| {
            told.poll_recv(cx).map(|update| update.map(Ok))
        }))
    }

    fn empties(&self) -> Empties {
        Empties::Authoritative
    }

    fn name(&self) -> &'static str {
        "told"
    }
}

fn best(mut what: impl FnMut() -> Result<Duration, BoxError>) -> Result<Duration, BoxError> {
    let mut best = Duration::MAX;
    for _ in 0..TIMES {
        best = best.min(what()?);
    }
    Ok(best)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
}
