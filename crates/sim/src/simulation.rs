//! The run: what happens next, and who is polled for it.

mod steps;
mod verbs;

use std::{collections::VecDeque, fmt, mem, sync::Arc, time::Duration};

use tower_mesh_core::{Clock, Instant, ManualClock, Rng};
use tower_service::Service;

use crate::{
    calls::{Alarm, Calls, Note, Ready, Woken},
    gauge::Gauge,
    policy::{Call, Member, Policy, Seat},
    report::{Report, ServerReport},
    scenario::{Scenario, Server},
    server::Machine,
    wire::{Tried, Wire},
};

/// How long calls are waited for that may never end, in virtual time.
const PATIENCE: Duration = Duration::from_secs(120);

/// A scenario under way.
///
/// It stands still until it is told to [`run`](Self::run); between two runs things can be done to its servers. Faults are
/// verbs, and servers are numbers: the ones of the [`Scenario`] from 0 on, then those that [`join`](Self::join).
///
/// # Panics
///
/// All that is done to a server panics if there is none of that number.
pub struct Simulation<P: Policy> {
    scenario: Scenario,
    policy: P,
    clients: Vec<Client<P::Service>>,
    calls: Calls<<P::Service as Service<Call>>::Future>,
    wire: Arc<Wire>,
    ready: Arc<Ready>,
    woken: Vec<Woken>,
    hand: ManualClock,
    now: Instant,
    started: Instant,
    chance: Chance,
    /// Whether calls arrive.
    arriving: bool,
    arrived: u64,
    /// The mean time between two calls, in nanoseconds: what the fleet is offered when it starts.
    between: f64,
    meter: Meter,
}

/// Each thing that is left to chance has a sequence of its own, so that none depends on what a policy does.
struct Chance {
    arrivals: Rng,
    clients: Rng,
    work: Rng,
    faults: Rng,
}

struct Client<S> {
    seat: Seat,
    service: S,
    alarm: Alarm,
    /// Calls for which the service is not ready yet.
    waiting: VecDeque<(Call, Note)>,
}

/// What is measured, since the last reset.
struct Meter {
    /// Resets so far: a call that began before the last one does not count.
    generation: u32,
    calls: u64,
    failed: u64,
    latencies: Vec<u64>,
    in_flight: Gauge,
    since: Instant,
    /// What was measured when arrivals were stopped.
    window: Option<Window>,
}

#[derive(Clone)]
struct Window {
    time: Duration,
    in_flight: f64,
    servers: Vec<ServerReport>,
}

impl<P: Policy> Simulation<P> {
    pub(crate) fn new(scenario: Scenario, mut policy: P) -> Self {
        assert!(!scenario.servers.is_empty(), "a fleet has servers");
        let (clock, hand) = Clock::manual();
        let now = clock.now();
        let seeds = Rng::seeded(scenario.seed);
        let stream = || Rng::seeded(seeds.next_u64());
        let chance = Chance {
            arrivals: stream(),
            clients: stream(),
            work: stream(),
            faults: stream(),
        };
        let machines = scenario.servers.iter();
        let machines = machines.map(|server| Machine::new(server, now)).collect();
        let wire = Wire::new(now, machines, scenario.wire, scenario.work, stream());
        let ready = Arc::new(Ready::default());
        let clients = (0..scenario.clients).map(|client| {
            let seat = Seat {
                client,
                clock: clock.clone(),
                rng: stream(),
                members: members(&scenario.servers),
                wire: Arc::clone(&wire),
            };
            Client::new(seat, &mut policy, &ready)
        });
        let clients = clients.collect();
        let mut this = Self {
            policy,
            clients,
            calls: Calls::new(&ready),
            wire,
            ready,
            woken: Vec::new(),
            hand,
            now,
            started: now,
            chance,
            arriving: false,
            arrived: 0,
            between: scenario.between(),
            meter: Meter::new(now),
            scenario,
        };
        this.begin_faults();
        this
    }

    /// Goes on for so long, with calls arriving.
    pub fn run(&mut self, time: Duration) {
        self.meter.window = None;
        if !mem::replace(&mut self.arriving, true) {
            self.schedule_arrival();
        }
        let end = self.now + time;
        while self.step(end) {}
        self.advance(end);
    }

    /// Forgets what was measured. Calls that run now will not be in the next report.
    pub fn reset(&mut self) {
        self.meter = Meter {
            in_flight: self.meter.in_flight,
            generation: self.meter.generation + 1,
            ..Meter::new(self.now)
        };
        self.meter.in_flight.reset(self.now);
        let mut wire = self.wire.lock();
        let now = self.now;
        wire.servers.iter_mut().for_each(|server| server.reset(now));
        wire.tried.fill(Tried::default());
    }

    /// Lets no more calls arrive and goes on until all have ended, or for two minutes.
    ///
    /// What is said of servers and of time in the next report is as of now: a fleet that runs empty is no longer the one
    /// that was measured.
    pub fn drain(&mut self) {
        self.meter.window = Some(self.window());
        self.arriving = false;
        let end = self.now + PATIENCE;
        while self.calls.running() + self.waiting() > 0 && self.step(end) {}
    }

    /// What was measured since the last [`reset`](Self::reset), or since the beginning.
    pub fn report(&self) -> Report {
        let window = self.meter.window.clone();
        let Window {
            time,
            in_flight,
            servers,
        } = window.unwrap_or_else(|| self.window());
        let mut latencies = self.meter.latencies.clone();
        latencies.sort_unstable();
        Report {
            time,
            latencies,
            calls: self.meter.calls,
            failed: self.meter.failed,
            in_flight,
            servers,
        }
    }

    /// What servers had to do since the last [`reset`](Self::reset).
    pub fn servers(&self) -> Vec<ServerReport> {
        self.window().servers
    }

    /// Runs for `warm_up`, measures for `time`, [drains](Self::drain), and reports.
    pub fn measure(&mut self, warm_up: Duration, time: Duration) -> Report {
        self.run(warm_up);
        self.reset();
        self.run(time);
        self.drain();
        self.report()
    }

    /// The time that has passed.
    pub fn elapsed(&self) -> Duration {
        self.now.since(self.started)
    }

    /// The policy under test.
    pub fn policy(&mut self) -> &mut P {
        &mut self.policy
    }

    fn waiting(&self) -> usize {
        self.clients.iter().map(|client| client.waiting.len()).sum()
    }

    fn window(&self) -> Window {
        let wire = self.wire.lock();
        let reports = wire.servers.iter().zip(&wire.tried);
        let servers = reports.map(|(server, tried)| ServerReport {
            attempts: tried.attempts,
            failures: tried.failures,
            answers: tried.answers,
            unheard: tried.unheard,
            peak_in_flight: server.in_flight.peak(),
            in_flight: server.in_flight.mean(self.now),
            utilisation: server.utilisation(self.now),
        });
        Window {
            time: self.now.since(self.meter.since),
            in_flight: self.meter.in_flight.mean(self.now),
            servers: servers.collect(),
        }
    }
}

impl<S> Client<S> {
    fn new<P: Policy<Service = S>>(seat: Seat, policy: &mut P, ready: &Arc<Ready>) -> Self {
        Self {
            service: policy.client(&seat),
            alarm: ready.waker(Woken::Client(seat.client)),
            seat,
            waiting: VecDeque::new(),
        }
    }
}

impl Meter {
    fn new(now: Instant) -> Self {
        Self {
            generation: 0,
            calls: 0,
            failed: 0,
            latencies: Vec::new(),
            in_flight: Gauge::new(now),
            since: now,
            window: None,
        }
    }
}

fn members(servers: &[Server]) -> Vec<Member> {
    let member = |(server, described): (usize, &Server)| Member {
        server,
        weight: described.weight,
    };
    servers.iter().enumerate().map(member).collect()
}

impl<P: Policy> fmt::Debug for Simulation<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation")
            .field("scenario", &self.scenario)
            .field("elapsed", &self.elapsed())
            .finish_non_exhaustive()
    }
}
