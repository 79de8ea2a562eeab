//! S10: servers are asked for twice what they can do, by three classes of requests.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxService};
use tower_mesh::{
    Body, Mesh,
    core::{BoxError, BoxFuture, Priority},
    http::{TIMEOUT_HEADER, context::PRIORITY_HEADER},
};
use tower_mesh_sim::{Call, Policy, Scenario, Seat, Server};

use super::{Mutant, Run, Size, chance::Chance, figure::Figure, world::SECOND};

const SETTLES: u32 = 10;
const MEASURED: u32 = 30;
/// As long as an attempt of the other scenarios.
const SENDER_WAITS: Duration = Duration::from_millis(500);
/// What the server is set to, so that it notices before its senders do.
const SERVER_GIVES: Duration = Duration::from_millis(250);

const CLASSES: [Priority; 3] = [Priority::Critical, Priority::Default, Priority::Sheddable];

pub(super) fn run(run: &Run) -> Vec<Figure> {
    let chance = Chance::new(run);
    // How much more than can be done, and of a hundred requests how many are critical, and how many neither that nor
    // sheddable. All that is critical can be done.
    let (overload, shares) = chance.one_of(&[
        (2.0, (33, 33)),
        (2.0, (10, 60)),
        (1.5, (40, 30)),
        (3.0, (20, 20)),
        (3.0, (10, 60)),
    ]);
    let servers = match run.size {
        Size::Full => 10,
        Size::Small => 2,
    };
    let scenario = Scenario::new(run.seed)
        .servers(vec![Server::new().slots(8); servers])
        .clients(servers)
        .utilisation(overload);
    let counts = Arc::<Mutex<Counts>>::default();
    let processes = Processes {
        runtime: Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a thread to run on"),
        meshes: Vec::new(),
        counts: Arc::clone(&counts),
        shares,
        believed: match run.mutant {
            Some(Mutant::NoPriorities) => Priority::Sheddable,
            _ => Priority::Critical,
        },
    };
    let mut sim = scenario.start(processes);
    sim.run(SETTLES * SECOND);
    *lock(&counts) = Counts::default();
    sim.run(MEASURED * SECOND);
    let counts = *lock(&counts);
    let goodput = |class: usize| counts.answered[class] as f64 / counts.sent[class].max(1) as f64;
    let answered: u64 = counts.answered.iter().sum();
    let possible = scenario.capacity() * f64::from(MEASURED);
    vec![
        Figure::at_least("critical requests answered, as a share", 0.99, goodput(0)),
        Figure::at_least(
            "how much more of the default than of the sheddable is answered",
            0.0,
            goodput(1) - goodput(2),
        ),
        Figure::at_least(
            "requests answered as a share of what the servers can do",
            0.9,
            answered as f64 / possible,
        ),
    ]
}

/// Requests of each class that were sent, and that were answered before their sender had gone.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    sent: [u64; 3],
    answered: [u64; 3],
}

/// A process for each client of the simulation: the shipped server layer, over a handler that needs a slot of a machine of
/// its own.
struct Processes {
    /// Runs what the meshes do in the background, and nothing of a request.
    runtime: Runtime,
    meshes: Vec<Mesh>,
    counts: Arc<Mutex<Counts>>,
    shares: (u64, u64),
    believed: Priority,
}

impl Policy for Processes {
    type Service = Process;

    fn client(&mut self, seat: &Seat) -> Process {
        let mesh = Mesh::builder("orders")
            .clock(seat.clock().clone())
            .rng(seat.rng().clone());
        let mesh = self.runtime.block_on(mesh.start()).expect("it can start");
        let machine = seat.connect(seat.client());
        let handler = service_fn(move |_: Request<Body>| {
            let machine = machine.clone();
            async move {
                machine.send().await?;
                Ok::<_, BoxError>(Response::new(Body::empty()))
            }
        });
        let layer = mesh
            .server_layer()
            .timeout(SERVER_GIVES)
            .believe_priority(self.believed);
        self.meshes.push(mesh);
        Process {
            server: BoxService::new(layer.layer(handler).map_response(|answer| answer.status())),
            counts: Arc::clone(&self.counts),
            shares: self.shares,
        }
    }
}

/// One of them, as its senders see it.
struct Process {
    server: BoxService<Request<Body>, StatusCode, Infallible>,
    counts: Arc<Mutex<Counts>>,
    shares: (u64, u64),
}

impl Process {
    fn class_of(&self, call: Call) -> usize {
        match call.nth % 100 {
            nth if nth < self.shares.0 => 0,
            nth if nth < self.shares.0 + self.shares.1 => 1,
            _ => 2,
        }
    }
}

impl Service<Call> for Process {
    type Response = ();
    type Error = StatusCode;
    type Future = BoxFuture<'static, Result<(), StatusCode>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StatusCode>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let class = self.class_of(call);
        lock(&self.counts).sent[class] += 1;
        let request = Request::get("/orders")
            .header(PRIORITY_HEADER, CLASSES[class].as_str())
            .header(TIMEOUT_HEADER, SENDER_WAITS.as_millis() as u64)
            .body(Body::empty());
        let answer = self.server.call(request.expect("a request"));
        let counts = Arc::clone(&self.counts);
        Box::pin(async move {
            let Ok(status) = answer.await;
            if !status.is_success() {
                return Err(status);
            }
            lock(&counts).answered[class] += 1;
            Ok(())
        })
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}
