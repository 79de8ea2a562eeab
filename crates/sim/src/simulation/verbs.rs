//! What can be done to servers between two runs.

use std::time::Duration;

use crate::{
    policy::{Member, Policy},
    scenario::Server,
    server::{Machine, Mood},
    wire::Tried,
};

use super::Simulation;

impl<P: Policy> Simulation<P> {
    /// A server stands still: what it works on goes on when it is [thawed](Self::thaw), and calls queue meanwhile. Frozen
    /// twice, it has to be thawed twice.
    pub fn freeze(&mut self, server: usize) {
        let mut wire = self.wire.lock();
        wire.change(server, |speeds| *speeds.frozen += 1);
    }

    /// A server that stood still goes on.
    pub fn thaw(&mut self, server: usize) {
        let mut wire = self.wire.lock();
        wire.change(server, |speeds| {
            *speeds.frozen = speeds.frozen.saturating_sub(1);
        });
    }

    /// A server has this share of its speed from now on, calls that it works on included; 1 is its own speed.
    ///
    /// # Panics
    ///
    /// If `share` is not above zero: that is [`freeze`](Self::freeze).
    pub fn slow(&mut self, server: usize, share: f64) {
        assert!(share > 0.0 && share.is_finite(), "a share of the speed");
        let mut wire = self.wire.lock();
        wire.change(server, |speeds| *speeds.slowed = share);
    }

    /// A server answers what reaches it with an error, after so long; what it works on it still does.
    pub fn fail(&mut self, server: usize, after: Duration) {
        self.wire.lock().servers[server].mood = Mood::Fails(after);
    }

    /// A server never answers what reaches it.
    pub fn hang(&mut self, server: usize) {
        self.wire.lock().servers[server].mood = Mood::Hangs;
    }

    /// A server neither fails nor hangs any more.
    pub fn heal(&mut self, server: usize) {
        self.wire.lock().servers[server].mood = Mood::Works;
    }

    /// A server joins the fleet, and all clients hear of it at once; gives its number.
    ///
    /// More is not offered for that: the rate of calls stays as it is.
    pub fn join(&mut self, server: Server) -> usize {
        let number = self.scenario.servers.len();
        let mut wire = self.wire.lock();
        wire.servers.push(Machine::new(&server, self.now));
        wire.tried.push(Tried::default());
        drop(wire);
        let member = Member {
            server: number,
            weight: server.weight,
        };
        self.scenario.servers.push(server);
        self.schedule_switch(number);
        self.tell(|members| members.push(member));
        number
    }

    /// All clients hear at once that a server is no member any more. It does what it has been given.
    pub fn leave(&mut self, server: usize) {
        self.tell(|members| members.retain(|member| member.server != server));
    }

    /// Attempts that are at a server now, waiting or not.
    pub fn in_flight(&self, server: usize) -> usize {
        self.wire.lock().servers[server].in_flight.level()
    }

    /// The most attempts that were at a server at once since the last [`reset`](Self::reset).
    pub fn peak_in_flight(&self, server: usize) -> usize {
        self.wire.lock().servers[server].in_flight.peak()
    }

    /// Attempts under way between clients and servers, or at them; those that were given up included.
    pub fn attempts(&self) -> usize {
        self.wire.lock().attempts()
    }

    fn tell(&mut self, change: impl Fn(&mut Vec<Member>)) {
        for client in &mut self.clients {
            change(&mut client.seat.members);
            self.policy.changed(&client.seat, &mut client.service);
        }
    }
}
