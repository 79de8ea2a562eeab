//! What is simulated.

use std::time::Duration;

use crate::{
    faults::{Antagonists, Pauses},
    policy::Policy,
    simulation::Simulation,
    work::{Work, nanos},
};

/// One server of a fleet: how much it does at once, and how fast.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    pub(crate) slots: usize,
    pub(crate) speed: f64,
    pub(crate) weight: u16,
    pub(crate) queue: Option<usize>,
}

impl Server {
    /// Four slots, speed 1, weight 1, a queue without end.
    pub fn new() -> Self {
        Self {
            slots: 4,
            speed: 1.0,
            weight: 1,
            queue: None,
        }
    }

    /// How many calls it works on at once; at least one.
    #[must_use]
    pub fn slots(mut self, slots: usize) -> Self {
        self.slots = slots.max(1);
        self
    }

    /// How fast it is: at 0.5 its calls take twice as long.
    ///
    /// # Panics
    ///
    /// If that is not above zero.
    #[must_use]
    pub fn speed(mut self, speed: f64) -> Self {
        assert!(
            speed > 0.0 && speed.is_finite(),
            "a speed is a number above 0"
        );
        self.speed = speed;
        self
    }

    /// What its clients are told that it weighs. It is no faster for that.
    #[must_use]
    pub fn weight(mut self, weight: u16) -> Self {
        self.weight = weight;
        self
    }

    /// How many calls may wait for a slot; more are answered with an error at once.
    #[must_use]
    pub fn queue(mut self, most: usize) -> Self {
        self.queue = Some(most);
        self
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

/// A fleet, its clients, what they offer and what goes wrong: all but the policy under test.
///
/// # Clone
///
/// A clone is the same description; a [`Simulation`] is started from it as often as you like, always with the same calls.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub(crate) seed: u64,
    pub(crate) servers: Vec<Server>,
    pub(crate) clients: usize,
    pub(crate) work: Work,
    pub(crate) wire: Duration,
    offered: Offered,
    pub(crate) antagonists: Option<Antagonists>,
    pub(crate) pauses: Vec<Pauses>,
}

#[derive(Clone, Copy, Debug)]
enum Offered {
    Utilisation(f64),
    Rate(f64),
}

impl Scenario {
    /// One client of one server, at a utilisation of 70 %, whose calls take 10 ms (log-normal) and 100 us on the wire
    /// each way; `seed` decides all that is left to chance.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            servers: vec![Server::new()],
            clients: 1,
            work: Work::default(),
            wire: Duration::from_micros(100),
            offered: Offered::Utilisation(0.7),
            antagonists: None,
            pauses: Vec::new(),
        }
    }

    /// The servers.
    #[must_use]
    pub fn servers(mut self, servers: impl IntoIterator<Item = Server>) -> Self {
        self.servers = servers.into_iter().collect();
        self
    }

    /// How many clients call them; at least one.
    #[must_use]
    pub fn clients(mut self, clients: usize) -> Self {
        self.clients = clients.max(1);
        self
    }

    /// What there is to do for a call.
    #[must_use]
    pub fn work(mut self, work: Work) -> Self {
        self.work = work;
        self
    }

    /// How long a call, and an answer, is under way.
    #[must_use]
    pub fn wire(mut self, wire: Duration) -> Self {
        self.wire = wire;
        self
    }

    /// Offers this share of what the servers can do, antagonists considered.
    #[must_use]
    pub fn utilisation(mut self, share: f64) -> Self {
        self.offered = Offered::Utilisation(share);
        self
    }

    /// Offers so many calls a second, whatever the servers can do.
    #[must_use]
    pub fn rate(mut self, calls_per_second: f64) -> Self {
        self.offered = Offered::Rate(calls_per_second);
        self
    }

    /// Neighbours take a part of the servers' speed now and then.
    #[must_use]
    pub fn antagonists(mut self, antagonists: Antagonists) -> Self {
        self.antagonists = Some(antagonists);
        self
    }

    /// Servers stand still now and then.
    #[must_use]
    pub fn pauses(mut self, pauses: Pauses) -> Self {
        self.pauses.push(pauses);
        self
    }

    /// How many calls a second the servers can answer, antagonists considered.
    pub fn capacity(&self) -> f64 {
        let slots: f64 = self.servers.iter().map(|s| s.slots as f64 * s.speed).sum();
        let left = self.antagonists.map_or(1.0, |some| some.leave());
        slots * left / self.work.mean().as_secs_f64()
    }

    /// Starts it with `policy`; no time has passed yet.
    ///
    /// # Panics
    ///
    /// If there are no servers, or no calls are offered.
    pub fn start<P: Policy>(&self, policy: P) -> Simulation<P> {
        Simulation::new(self.clone(), policy)
    }

    /// The mean time between two calls, in nanoseconds.
    pub(crate) fn between(&self) -> f64 {
        let rate = match self.offered {
            Offered::Utilisation(share) => share * self.capacity(),
            Offered::Rate(rate) => rate,
        };
        assert!(rate > 0.0 && rate.is_finite(), "calls have to be offered");
        nanos(Duration::from_secs(1)) / rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_counts_slots_speeds_and_what_antagonists_leave() {
        let scenario = Scenario::new(1).servers([Server::new(), Server::new().speed(0.5)]);
        assert_eq!(scenario.capacity(), 600.0);
        let disturbed = scenario.antagonists(Antagonists::new());
        assert!((disturbed.capacity() - 510.0).abs() < 1e-9);
        assert!((disturbed.utilisation(0.5).between() - 1e9 / 255.0).abs() < 1e-3);
    }
}
