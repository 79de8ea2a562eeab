//! Simple policies to compare with: none of them heeds weights, latency or failures, or hears who joins.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tower_mesh_core::Rng;
use tower_service::Service;

use crate::{
    policy::{Call, Seat},
    wire::{Answer, Connection, Exchange, Failed},
};

/// A random server for each call.
#[derive(Clone, Debug)]
pub struct Random {
    servers: Vec<Connection>,
    rng: Rng,
}

impl Random {
    /// For the client that sits there.
    pub fn client(seat: &Seat) -> Self {
        Self {
            servers: seat.connections(),
            rng: seat.rng().clone(),
        }
    }
}

impl Service<Call> for Random {
    type Response = Answer;
    type Error = Failed;
    type Future = Exchange;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Call) -> Exchange {
        self.servers[self.rng.below(self.servers.len())].send()
    }
}

/// One server after the other; each client begins with a random one.
#[derive(Clone, Debug)]
pub struct RoundRobin {
    servers: Vec<Connection>,
    turn: usize,
}

impl RoundRobin {
    /// For the client that sits there.
    pub fn client(seat: &Seat) -> Self {
        let servers = seat.connections();
        Self {
            turn: seat.rng().below(servers.len()),
            servers,
        }
    }
}

impl Service<Call> for RoundRobin {
    type Response = Answer;
    type Error = Failed;
    type Future = Exchange;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Call) -> Exchange {
        self.turn = (self.turn + 1) % self.servers.len();
        self.servers[self.turn].send()
    }
}

/// The one of two random servers at which fewer of this client's calls are.
#[derive(Debug)]
pub struct LeastInFlight {
    servers: Vec<(Connection, Arc<AtomicUsize>)>,
    rng: Rng,
}

impl LeastInFlight {
    /// For the client that sits there.
    pub fn client(seat: &Seat) -> Self {
        let servers = seat.connections().into_iter();
        Self {
            servers: servers.map(|server| (server, Arc::default())).collect(),
            rng: seat.rng().clone(),
        }
    }

    fn pick(&self) -> usize {
        let servers = self.servers.len();
        let one = self.rng.below(servers);
        if servers == 1 {
            return one;
        }
        let other = (one + 1 + self.rng.below(servers - 1)) % servers;
        let load = |nth: usize| self.servers[nth].1.load(Ordering::Relaxed);
        if load(other) < load(one) { other } else { one }
    }
}

impl Service<Call> for LeastInFlight {
    type Response = Answer;
    type Error = Failed;
    type Future = Counted;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Call) -> Counted {
        let (server, in_flight) = &self.servers[self.pick()];
        in_flight.fetch_add(1, Ordering::Relaxed);
        Counted {
            exchange: server.send(),
            in_flight: Arc::clone(in_flight),
        }
    }
}

/// An attempt that counts as in flight until it is dropped.
#[must_use = "futures do nothing unless polled"]
pub struct Counted {
    exchange: Exchange,
    in_flight: Arc<AtomicUsize>,
}

impl Future for Counted {
    type Output = Result<Answer, Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.exchange).poll(cx)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted")
            .field("exchange", &self.exchange)
            .finish_non_exhaustive()
    }
}
