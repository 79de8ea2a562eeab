//! What is under test.

use std::{fmt, sync::Arc, time::Duration};

use tower_mesh_core::{Clock, Rng};
use tower_service::Service;

use crate::wire::{Connection, Wire};

/// The request of a client: it says which call this is, and needs no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Call {
    /// How many calls there were before.
    pub nth: u64,
    /// The client that makes it.
    pub client: usize,
}

/// One server as its clients know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Its number.
    pub server: usize,
    /// What it weighs.
    pub weight: u16,
}

/// Makes the service under test for each client: a closure from a [`Seat`], or something that also hears who joins.
pub trait Policy {
    /// What a client's calls are given to. A call is answered if its future ends with `Ok`, whatever is in it.
    type Service: Service<Call>;

    /// Makes the service of the client that sits there.
    fn client(&mut self, seat: &Seat) -> Self::Service;

    /// The members have changed: tells the service of the client that sits there. The default tells it nothing.
    fn changed(&mut self, seat: &Seat, service: &mut Self::Service) {
        let _ = (seat, service);
    }

    /// Time goes on: for what does not read the [`Seat`]'s clock. Called before anything that happens then.
    fn advance(&mut self, by: Duration) {
        let _ = by;
    }
}

impl<F, S> Policy for F
where
    F: FnMut(&Seat) -> S,
    S: Service<Call>,
{
    type Service = S;

    fn client(&mut self, seat: &Seat) -> S {
        self(seat)
    }
}

/// Where a client sits: what it knows of the fleet, and what it may use.
///
/// # Clone
///
/// A clone has the same clock and chance, and the members that were known when it was made.
#[derive(Clone)]
pub struct Seat {
    pub(crate) client: usize,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) members: Vec<Member>,
    pub(crate) wire: Arc<Wire>,
}

impl Seat {
    /// The number of the client.
    pub fn client(&self) -> usize {
        self.client
    }

    /// The clock of the simulation, and its timers.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Chance of this client's own, seeded.
    pub fn rng(&self) -> &Rng {
        &self.rng
    }

    /// The servers that this client knows.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A connection to a server.
    pub fn connect(&self, server: usize) -> Connection {
        Connection::new(&self.wire, server)
    }

    /// Connections to all members, in their order.
    pub fn connections(&self) -> Vec<Connection> {
        let connect = |member: &Member| self.connect(member.server);
        self.members.iter().map(connect).collect()
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("client", &self.client)
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}
