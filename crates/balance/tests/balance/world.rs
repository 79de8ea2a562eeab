//! Simulated servers in virtual time, and the clients that call them through the real balancer.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    error::Error,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tower::{Layer, Service};
use tower_mesh_balance::{Balance, BalanceLayer, Strategy};
use tower_mesh_core::{
    BoxError, Classify, ClassifyErrors, Clock, Endpoint, Endpoints, Instant, ManualClock, Outcome,
    Report, Resolution, Rng, Weight,
};

use crate::fleet::{Failed, endpoint, name};

const WIRE: Duration = Duration::from_micros(100);
const MEAN_MS: f64 = 10.0;
const SIGMA: f64 = 0.8;

#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) slots: usize,
    pub(crate) speed: f64,
    pub(crate) weight: u16,
    pub(crate) fails: bool,
    /// What it says of itself, if that is not the truth.
    pub(crate) lie: Option<Report>,
    pub(crate) busy: usize,
    pub(crate) queue: VecDeque<usize>,
    pub(crate) calls: usize,
    pub(crate) most: usize,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self {
            slots: 4,
            speed: 1.0,
            weight: 1,
            fails: false,
            lie: None,
            busy: 0,
            queue: VecDeque::new(),
            calls: 0,
            most: 0,
        }
    }

    pub(crate) fn with_speed(speed: f64) -> Self {
        Self {
            speed,
            ..Self::new()
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.busy + self.queue.len()
    }

    /// What it says of its load.
    fn report(&self) -> Report {
        let each = Duration::from_secs_f64(MEAN_MS / 1e3 / self.speed / self.slots as f64);
        let truth = Report::new(self.in_flight() as u32, each);
        self.lie.unwrap_or(truth)
    }
}

/// Judges errors as the default does, and hears what servers say of their load.
#[derive(Clone, Copy)]
pub(crate) struct Listening;

impl Classify<Report> for Listening {
    type Answer = Outcome;

    fn classify(&self, result: Result<&Report, &(dyn Error + Send + Sync + 'static)>) -> Outcome {
        ClassifyErrors::default().classify(result)
    }

    fn report(&self, response: &Report) -> Option<Report> {
        Some(*response)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives,
    Reaches { call: usize, server: usize },
    Leaves { call: usize, server: usize },
    Answered { call: usize },
    Switches { server: usize },
}

/// What services tell the simulation, and it them.
#[derive(Default)]
struct Wire {
    sent: Option<(usize, usize)>,
    answers: HashMap<usize, Result<Report, Failed>>,
}

#[derive(Clone)]
struct Client {
    server: usize,
    wire: Arc<Mutex<Wire>>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Report, BoxError>> + Send>>;

impl Service<usize> for Client {
    type Response = Report;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: usize) -> Answer {
        self.wire.lock().unwrap().sent = Some((call, self.server));
        let wire = Arc::clone(&self.wire);
        Box::pin(poll_fn(move |_| {
            match wire.lock().unwrap().answers.remove(&call) {
                Some(answer) => Poll::Ready(answer.map_err(Into::into)),
                None => Poll::Pending,
            }
        }))
    }
}

pub(crate) struct Simulation {
    clock: Clock,
    hand: ManualClock,
    rng: Rng,
    wire: Arc<Mutex<Wire>>,
    pub(crate) servers: Vec<Server>,
    sets: Vec<Endpoints>,
    clients: Vec<Balance<Client, Listening>>,
    events: BinaryHeap<Reverse<(Instant, usize, Event)>>,
    scheduled: usize,
    running: HashMap<usize, (Instant, Answer)>,
    arrived: usize,
    between: f64,
    full_speed: Vec<f64>,
    pub(crate) latencies: Vec<Duration>,
    errors: usize,
}

impl Simulation {
    pub(crate) fn new(
        strategy: Strategy,
        clients: usize,
        servers: Vec<Server>,
        utilisation: f64,
    ) -> Self {
        let (clock, hand) = Clock::manual();
        let rng = Rng::seeded(20_261_120);
        let wire: Arc<Mutex<Wire>> = Arc::default();
        let capacity: f64 = servers
            .iter()
            .map(|s| s.slots as f64 * s.speed / MEAN_MS)
            .sum();
        let sets: Vec<_> = (0..clients)
            .map(|_| Endpoints::fixed(name(), (0..servers.len()).map(|at| described(&servers, at))))
            .collect();
        let connect = |wire: &Arc<Mutex<Wire>>| {
            let wire = Arc::clone(wire);
            move |endpoint: &Endpoint| Client {
                server: usize::from(endpoint.address().port()) - 1,
                wire: Arc::clone(&wire),
            }
        };
        let balance = |set: &Endpoints| {
            BalanceLayer::new(set.clone())
                .strategy(strategy)
                .clock(clock.clone())
                .rng(rng.clone())
                .classify(Listening)
                .layer(connect(&wire))
        };
        let mut this = Self {
            clients: sets.iter().map(balance).collect(),
            between: 1.0 / (capacity * utilisation),
            full_speed: servers.iter().map(|server| server.speed).collect(),
            clock,
            hand,
            rng,
            wire,
            servers,
            sets,
            events: BinaryHeap::new(),
            scheduled: 0,
            running: HashMap::new(),
            arrived: 0,
            latencies: Vec::new(),
            errors: 0,
        };
        this.schedule(Duration::ZERO, Event::Arrives);
        this
    }

    /// Each server is at half speed 30 % of the time, changing every half second or so.
    pub(crate) fn with_antagonists(mut self) -> Self {
        self.between /= 0.85;
        for server in 0..self.servers.len() {
            let wait = self.exponential(500.0);
            self.schedule(wait, Event::Switches { server });
        }
        self
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.scheduled += 1;
        let at = self.clock.now() + after;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    fn exponential(&self, mean_ms: f64) -> Duration {
        Duration::from_secs_f64(-(1.0 - self.rng.unit()).ln() * mean_ms / 1e3)
    }

    fn service_time(&self, server: usize) -> Duration {
        let (u, v) = (1.0 - self.rng.unit(), self.rng.unit());
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        let ms = MEAN_MS * (SIGMA * normal - SIGMA * SIGMA / 2.0).exp();
        Duration::from_secs_f64(ms / 1e3 / self.servers[server].speed)
    }

    /// Runs for so long and forgets what was measured before.
    pub(crate) fn run(&mut self, time: Duration) -> &mut Self {
        let end = self.clock.now() + time;
        self.latencies.clear();
        self.errors = 0;
        for server in &mut self.servers {
            (server.calls, server.most) = (0, 0);
        }
        while let Some(Reverse((at, _, event))) = self.events.pop_if_before(end) {
            self.hand.advance_to(at);
            self.happen(event);
        }
        self
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives => {
                let wait = self.exponential(self.between);
                self.schedule(wait, Event::Arrives);
                self.arrived += 1;
                let client = self.rng.below(self.clients.len());
                let answer = Box::pin(self.clients[client].call(self.arrived));
                self.running
                    .insert(self.arrived, (self.clock.now(), answer));
                self.poll(self.arrived);
                let sent = self.wire.lock().unwrap().sent.take();
                if let Some((call, server)) = sent {
                    self.servers[server].calls += 1;
                    self.schedule(WIRE, Event::Reaches { call, server });
                }
            }
            Event::Reaches { call, server } if self.servers[server].fails => {
                self.wire.lock().unwrap().answers.insert(call, Err(Failed));
                self.schedule(WIRE, Event::Answered { call });
            }
            Event::Reaches { call, server } => {
                self.servers[server].queue.push_back(call);
                self.start(server);
                let most = self.servers[server]
                    .most
                    .max(self.servers[server].in_flight());
                self.servers[server].most = most;
            }
            Event::Leaves { call, server } => {
                self.servers[server].busy -= 1;
                let report = self.servers[server].report();
                self.wire.lock().unwrap().answers.insert(call, Ok(report));
                self.schedule(WIRE, Event::Answered { call });
                self.start(server);
            }
            Event::Answered { call } => self.poll(call),
            Event::Switches { server } => {
                let full = self.full_speed[server];
                let slow = self.rng.unit() < 0.3;
                self.servers[server].speed = if slow { 0.5 * full } else { full };
                let wait = self.exponential(500.0);
                self.schedule(wait, Event::Switches { server });
            }
        }
    }

    fn start(&mut self, server: usize) {
        while self.servers[server].busy < self.servers[server].slots {
            let Some(call) = self.servers[server].queue.pop_front() else {
                return;
            };
            self.servers[server].busy += 1;
            let time = self.service_time(server);
            self.schedule(time, Event::Leaves { call, server });
        }
    }

    fn poll(&mut self, call: usize) {
        let Some((begun, answer)) = self.running.get_mut(&call) else {
            return;
        };
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(result) = answer.as_mut().poll(&mut cx) {
            match result {
                Ok(_) => self.latencies.push(self.clock.now().since(*begun)),
                Err(_) => self.errors += 1,
            }
            self.running.remove(&call);
        }
    }

    pub(crate) fn percentile(&mut self, percent: f64) -> f64 {
        self.latencies.sort_unstable();
        let at = (self.latencies.len() as f64 * percent / 100.0) as usize;
        self.latencies[at].as_secs_f64() * 1e3
    }

    /// The calls to such servers, as a share of all.
    pub(crate) fn share(&self, servers: impl Fn(&Server) -> bool) -> f64 {
        let calls = |of: &dyn Fn(&Server) -> bool| -> usize {
            self.servers.iter().filter(|s| of(s)).map(|s| s.calls).sum()
        };
        calls(&servers) as f64 / calls(&|_| true) as f64
    }

    /// The calls to the server at `at`, as a multiple of an equal share.
    pub(crate) fn share_of(&self, at: usize) -> f64 {
        let all: usize = self.servers.iter().map(|server| server.calls).sum();
        (self.servers[at].calls * self.servers.len()) as f64 / all as f64
    }

    pub(crate) fn join(&mut self, server: Server) {
        self.servers.push(server);
        for set in &self.sets {
            let mut new = set.current().endpoints().to_vec();
            new.push(described(&self.servers, self.servers.len() - 1));
            set.publish(Resolution::Found, new);
        }
    }
}

fn described(servers: &[Server], at: usize) -> Endpoint {
    endpoint(1 + at as u16).with_weight(Weight::new(servers[at].weight))
}

trait PopIfBefore<T> {
    fn pop_if_before(&mut self, end: Instant) -> Option<T>;
}

impl PopIfBefore<Reverse<(Instant, usize, Event)>>
    for BinaryHeap<Reverse<(Instant, usize, Event)>>
{
    fn pop_if_before(&mut self, end: Instant) -> Option<Reverse<(Instant, usize, Event)>> {
        match self.peek() {
            Some(Reverse((at, ..))) if *at < end => self.pop(),
            _ => None,
        }
    }
}
