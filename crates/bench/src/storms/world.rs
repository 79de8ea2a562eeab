//! A fleet with its clients, and what has to hold at every moment.

use std::{ops::Range, sync::Arc, time::Duration};

use tower_mesh::{
    Policy,
    status::{EndpointStatus, ServiceStatus},
};
use tower_mesh_sim::{Scenario, Server, Simulation};

use crate::simulated::{Log, Meshes, NAME, endpoint_at};

use super::{Run, Size, figure::Figure};

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// So often it is looked whether all holds that has to.
const LOOK: Duration = Duration::from_millis(100);

/// So many endpoints of clients are looked at each time, in turns; all of them in small runs of few servers.
const LOOKED_AT: usize = 100;

/// The policy under test: the default one, with the study's times of a call, and with what a mutant breaks.
pub(super) fn settings(run: &Run) -> Policy {
    let mut policy = Policy::default();
    policy.timeout = 2 * SECOND;
    policy.retry.per_try_timeout = Some(500 * MS);
    if let Some(mutant) = run.mutant {
        mutant.breaks(&mut policy);
    }
    policy
}

/// The fleet of the study, 10 servers with 8 slots and 20 clients, or a quarter of it: as many calls for each client.
pub(super) fn fleet(run: &Run, load: f64) -> Scenario {
    let (servers, slots, clients) = match run.size {
        Size::Full => (10, 8, 20),
        Size::Small => (10, 2, 5),
    };
    Scenario::new(run.seed)
        .servers(vec![Server::new().slots(slots); servers])
        .clients(clients)
        .utilisation(load)
}

/// Whatever happens, these hold; they are looked at every 100 ms.
#[derive(Debug, Default)]
struct Invariants {
    /// How often more were ejected than may be, or all of them.
    beyond_share: u64,
    looked: usize,
}

pub(super) struct World {
    pub(super) sim: Simulation<Meshes>,
    pub(super) log: Arc<Log>,
    max_out: f64,
    invariants: Invariants,
}

impl World {
    pub(super) fn new(scenario: &Scenario, settings: &Policy) -> Self {
        Self::of(scenario, settings, Meshes::new(settings.clone()))
    }

    pub(super) fn of(scenario: &Scenario, settings: &Policy, meshes: Meshes) -> Self {
        let mut sim = scenario.start(meshes.logged());
        let log = Arc::clone(sim.policy().log().expect("it writes"));
        Self {
            sim,
            log,
            max_out: settings.panic.max_out.get(),
            invariants: Invariants::default(),
        }
    }

    /// Goes on for so long.
    pub(super) fn run(&mut self, time: Duration) {
        self.watch(time, |_| {});
    }

    /// The same; `look` is called every 100 ms.
    pub(super) fn watch(&mut self, time: Duration, mut look: impl FnMut(&mut Self)) {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.sim.run(LOOK.min(end - self.sim.elapsed()));
            self.look();
            look(self);
        }
    }

    /// Does the same to all servers.
    pub(super) fn all(&mut self, mut what: impl FnMut(&mut Simulation<Meshes>, usize)) {
        for server in 0..self.sim.servers().len() {
            what(&mut self.sim, server);
        }
    }

    /// A server is no member any more, and all clients know.
    pub(super) fn leave(&mut self, server: usize) {
        self.sim.leave(server);
        self.log.removed(server);
    }

    /// What clients say of the service, in the order of clients.
    pub(super) fn statuses(&mut self) -> Vec<ServiceStatus> {
        let clients = self.sim.policy().rooms().len();
        (0..clients).map(|client| self.status(client)).collect()
    }

    /// What one client says of it.
    pub(super) fn status(&mut self, client: usize) -> ServiceStatus {
        let status = self.sim.policy().rooms()[client].mesh.status();
        let mut services = status.services.into_iter();
        let found = services.find(|service| service.name == NAME);
        found.expect("it is called")
    }

    fn look(&mut self) {
        let clients = self.sim.policy().rooms().len();
        let endpoints = self.sim.policy().rooms()[0].known();
        let looked_at = (LOOKED_AT / endpoints.max(1)).clamp(1, clients);
        for nth in 0..looked_at {
            let client = (self.invariants.looked + nth) % clients;
            // With every gate open nobody is ejected; a status is dear.
            if self.sim.policy().rooms()[client].all_are_in() {
                continue;
            }
            let status = self.status(client);
            let (known, ejected) = (status.endpoints.len(), status.ejection.ejected);
            let share = ejected as f64 > self.max_out * known as f64;
            let all = ejected > 0 && ejected >= known;
            self.invariants.beyond_share += u64::from(share || all);
        }
        self.invariants.looked += looked_at;
    }

    /// What has to hold in any run.
    pub(super) fn invariants(&self) -> [Figure; 2] {
        [
            Figure::at_most(
                "I6: moments with more ejected than the share, or with nobody left",
                0.0,
                self.invariants.beyond_share as f64,
            ),
            Figure::at_most(
                "I7: attempts sent to a server after its clients heard that it is gone",
                0.0,
                self.log.to_removed() as f64,
            ),
        ]
    }

    /// The second within which goodput is back at 95 % of what is offered, and stays so for three; counted from `end`.
    pub(super) fn recovery(&self, seconds: Range<usize>) -> f64 {
        let all = self.log.seconds();
        let good = |nth: usize| all.get(nth).is_some_and(|second| second.goodput() >= 0.95);
        let mut starts = seconds.clone();
        let start = starts.find(|start| (0..3).all(|nth| good(start + nth)));
        start.map_or(f64::INFINITY, |start| (start - seconds.start) as f64)
    }
}

/// What a status says of a server.
pub(super) fn endpoint(status: &ServiceStatus, server: usize) -> &EndpointStatus {
    let address = endpoint_at(server).address().to_string();
    let mut endpoints = status.endpoints.iter();
    let found = endpoints.find(|endpoint| endpoint.address == address);
    found.expect("it is known")
}

/// As a word in the name of a figure.
pub(super) fn percent(load: f64) -> String {
    format!("{:.0} %", 100.0 * load)
}

/// Of sorted times, the one that this share stays below, in seconds; zero if there are none.
pub(super) fn quantile(sorted: &[Duration], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    let time = sorted.get(at.min(sorted.len().saturating_sub(1)));
    time.map_or(0.0, Duration::as_secs_f64)
}
