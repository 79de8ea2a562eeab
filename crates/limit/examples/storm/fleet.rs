//! Clients of a simulated fleet: deadline, bulkhead, retry and balancer as the mesh stacks them, without breakers.

use std::{
    error::Error,
    fmt,
    future::Future,
    net::Ipv4Addr,
    num::NonZeroU32,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tower::{Layer, Service};
use tower_mesh_balance::BalanceLayer;
use tower_mesh_core::{
    BoxError, Clock, CloneIdempotent, Endpoint, Endpoints, Layered, Outcome, Ratio, ServiceName,
};
use tower_mesh_limit::{
    Adaptive, AdaptiveLimit, BulkheadLayer, DeadlineLayer, Overloaded, adaptive::Why,
};
use tower_mesh_retry::{Backoff, Budget, RetryLayer};
use tower_mesh_sim::{Call, Connection, Scenario, Seat, Server, Simulation};

/// Who calls whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fleet {
    pub(crate) seed: u64,
    pub(crate) clients: usize,
    pub(crate) servers: usize,
    pub(crate) slots: usize,
    pub(crate) load: f64,
    /// Every third server has this share of the others' speed.
    pub(crate) slowest: f64,
}

/// The fleet of `performance.md` (d): 8,000 calls a second.
pub(crate) const TWENTY_BY_TEN: Fleet = Fleet {
    seed: 1,
    clients: 20,
    servers: 10,
    slots: 8,
    load: 0.7,
    slowest: 1.0,
};

impl Fleet {
    fn scenario(&self) -> Scenario {
        let speed = |nth: usize| if nth % 3 == 2 { self.slowest } else { 1.0 };
        let server = |nth| Server::new().slots(self.slots).speed(speed(nth));
        Scenario::new(self.seed)
            .servers((0..self.servers).map(server))
            .clients(self.clients)
            .utilisation(self.load)
    }

    /// How many calls a second the servers can answer.
    pub(crate) fn capacity(&self) -> f64 {
        self.scenario().capacity()
    }
}

/// What is under test, and what is known of it.
pub(crate) struct Storm {
    pub(crate) fleet: Fleet,
    pub(crate) counts: Arc<Counts>,
    pub(crate) limits: Limits,
    sim: Simulation<Clients>,
}

/// Makes the client that sits there.
type Clients = Box<dyn FnMut(&Seat) -> Client>;

type Limits = Arc<std::sync::Mutex<Vec<AdaptiveLimit>>>;

/// What became of calls, in all.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) answered: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// A stretch of time, measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) calls: u64,
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    pub(crate) attempts: u64,
    /// Of the slots of all servers.
    pub(crate) busy: f64,
}

impl Stretch {
    pub(crate) fn amplification(&self) -> f64 {
        self.attempts as f64 / self.calls.max(1) as f64
    }

    /// Answers as a share of calls.
    pub(crate) fn goodput(&self) -> f64 {
        self.answered as f64 / self.calls.max(1) as f64
    }
}

impl Storm {
    pub(crate) fn new(fleet: Fleet, adaptive: impl Fn() -> Option<Adaptive> + 'static) -> Self {
        let (counts, limits) = (Arc::<Counts>::default(), Limits::default());
        let (told, known) = (Arc::clone(&counts), Arc::clone(&limits));
        let make: Clients = Box::new(move |seat| {
            let (client, limit) = Client::new(seat, adaptive(), Arc::clone(&told));
            known.lock().expect("nobody panics").push(limit);
            client
        });
        let sim = fleet.scenario().start(make);
        Self {
            fleet,
            counts,
            limits,
            sim,
        }
    }

    pub(crate) fn run(&mut self, time: Duration) -> Stretch {
        let Counts {
            answered,
            refused,
            failed,
        } = &*self.counts;
        let read = || {
            (
                answered.load(Relaxed),
                refused.load(Relaxed),
                failed.load(Relaxed),
            )
        };
        let before = read();
        self.sim.reset();
        self.sim.run(time);
        let (after, report) = (read(), self.sim.report());
        let servers = report.servers();
        Stretch {
            calls: report.calls(),
            answered: after.0 - before.0,
            refused: after.1 - before.1,
            failed: after.2 - before.2,
            attempts: report.attempts(),
            busy: servers.iter().map(|s| s.utilisation).sum::<f64>() / servers.len() as f64,
        }
    }

    pub(crate) fn seconds(&mut self, number: usize) -> Vec<Stretch> {
        (0..number)
            .map(|_| self.run(Duration::from_secs(1)))
            .collect()
    }

    pub(crate) fn all(&mut self, mut change: impl FnMut(&mut Simulation<Clients>, usize)) {
        for server in 0..self.fleet.servers {
            change(&mut self.sim, server);
        }
    }

    pub(crate) fn begin(&mut self, outage: Outage) {
        self.all(|sim, server| match outage {
            Outage::Refuse => sim.fail(server, Duration::ZERO),
            Outage::Slow => sim.slow(server, 0.25),
            Outage::Hang => sim.freeze(server),
        });
    }

    pub(crate) fn end(&mut self, outage: Outage) {
        self.all(|sim, server| match outage {
            Outage::Refuse => sim.heal(server),
            Outage::Slow => sim.slow(server, 1.0),
            Outage::Hang => sim.thaw(server),
        });
    }

    /// The limits of all clients, and why they were last moved.
    pub(crate) fn limits(&self) -> Vec<(usize, Why)> {
        let limits = self.limits.lock().expect("nobody panics");
        let look = |limit: &AdaptiveLimit| (limit.snapshot().limit, limit.snapshot().why);
        limits.iter().map(look).collect()
    }
}

/// What happens to all servers for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    /// They answer with "too much to do" at once.
    Refuse,
    /// They take four times as long.
    Slow,
    /// They take what comes, and stand still.
    Hang,
}

/// A server as the balancer calls it.
#[derive(Clone)]
struct Remote(Connection);

impl Service<u64> for Remote {
    type Response = ();
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u64) -> Self::Future {
        let exchange = self.0.send();
        Box::pin(async move { exchange.await.map(drop).map_err(|_| Busy.into()) })
    }
}

/// A server has answered that it has too much to do.
#[derive(Debug)]
struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too much to do")
    }
}

impl Error for Busy {}

fn judge(result: Result<&(), &(dyn Error + Send + Sync + 'static)>) -> Outcome {
    match result {
        Ok(()) => Outcome::success(),
        Err(error) if error.is::<Busy>() => Outcome::overload(),
        Err(error) => tower_mesh_core::ClassifyErrors::error(error),
    }
}

/// One client.
pub(crate) struct Client {
    call: Box<dyn FnMut(u64) -> Answer>,
    counts: Arc<Counts>,
}

type Answer = Pin<Box<dyn Future<Output = Result<(), BoxError>>>>;

/// As the mesh's default.
const MAX: std::num::NonZeroUsize = std::num::NonZeroUsize::new(1_024).expect("not zero");
const ATTEMPTS: NonZeroU32 = NonZeroU32::new(3).expect("not zero");
const PER_TRY: Duration = Duration::from_millis(500);
const DEADLINE: Duration = Duration::from_secs(2);

impl Client {
    fn new(seat: &Seat, adaptive: Option<Adaptive>, counts: Arc<Counts>) -> (Self, AdaptiveLimit) {
        let clock: Clock = seat.clock().clone();
        let address = |server: usize| (Ipv4Addr::LOCALHOST, 1 + server as u16).into();
        let endpoints = seat
            .members()
            .iter()
            .map(|m| Endpoint::new(address(m.server)));
        let name = ServiceName::new("orders").expect("a valid name");
        let endpoints = Endpoints::fixed(name, endpoints);
        let bulkhead = BulkheadLayer::new(MAX)
            .adaptive(adaptive)
            .clock(clock.clone());
        let limit = bulkhead.adaptive_limit();
        let servers = seat.clone();
        let connect = move |endpoint: &Endpoint| {
            Remote(servers.connect(usize::from(endpoint.address().port()) - 1))
        };
        let balance = BalanceLayer::new(endpoints)
            .clock(clock.clone())
            .rng(seat.rng().clone())
            .classify(judge)
            .layer(Layered::new(connect, limit.clone()));
        let retry = RetryLayer::new(Budget::new(Ratio::percent(10)).min_per_second(1))
            .attempts(ATTEMPTS)
            .backoff(Backoff::exponential(
                Duration::from_millis(25),
                Duration::from_millis(250),
            ))
            .per_try_timeout(PER_TRY)
            .replay(CloneIdempotent::default())
            .clock(clock.clone())
            .rng(seat.rng().clone())
            .over(balance);
        let mut service = DeadlineLayer::new(DEADLINE)
            .clock(clock)
            .over(bulkhead.over(retry));
        let call = Box::new(move |nth| Box::pin(service.call(nth)) as Answer);
        (Self { call, counts }, limit)
    }
}

impl Service<Call> for Client {
    type Response = ();
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Answer {
        let (answer, counts) = ((self.call)(call.nth), Arc::clone(&self.counts));
        Box::pin(async move {
            let result = answer.await;
            let count = match &result {
                Ok(()) => &counts.answered,
                Err(error) if error.is::<Overloaded>() => &counts.refused,
                Err(_) => &counts.failed,
            };
            count.fetch_add(1, Relaxed);
            result
        })
    }
}
