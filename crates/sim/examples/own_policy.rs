//! A policy of one's own against one that is known: does it pay to remember which server was fast last time?
//!
//! `cargo run --release -p tower-mesh-sim --example own_policy`

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use tower_mesh_core::Rng;
use tower_mesh_sim::{
    Answer, Antagonists, Call, Connection, Exchange, Failed, Report, Scenario, Seat, Server,
    policies::{LeastInFlight, Random},
};
use tower_service::Service;

/// The one of two random servers whose last answer said that less was left to do there.
struct LastSaid {
    servers: Vec<Connection>,
    /// What each server said last.
    said: Arc<Mutex<Vec<usize>>>,
    rng: Rng,
}

impl LastSaid {
    fn client(seat: &Seat) -> Self {
        let servers = seat.connections();
        Self {
            said: Arc::new(Mutex::new(vec![0; servers.len()])),
            servers,
            rng: seat.rng().clone(),
        }
    }
}

impl Service<Call> for LastSaid {
    type Response = Answer;
    type Error = Failed;
    type Future = Listening;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Call) -> Listening {
        let [one, other] = [(); 2].map(|()| self.rng.below(self.servers.len()));
        let said = self.said.lock().expect("nobody panics with it");
        let best = if said[other] < said[one] { other } else { one };
        Listening {
            exchange: self.servers[best].send(),
            said: Arc::clone(&self.said),
        }
    }
}

/// Notes what the server says of itself.
struct Listening {
    exchange: Exchange,
    said: Arc<Mutex<Vec<usize>>>,
}

impl Future for Listening {
    type Output = Result<Answer, Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.exchange).poll(cx));
        if let Ok(answer) = answer {
            self.said.lock().expect("nobody panics with it")[answer.server] = answer.in_flight;
        }
        Poll::Ready(answer)
    }
}

fn main() {
    let scenario = Scenario::new(42)
        .servers((0..20).map(|nth| Server::new().speed(if nth % 3 == 0 { 0.5 } else { 1.0 })))
        .antagonists(Antagonists::new())
        .clients(4)
        .utilisation(0.8);
    let (warm_up, time) = (Duration::from_secs(2), Duration::from_secs(10));
    let show = |name, report: Report| {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| report.latency(share));
        println!(
            "{name:18} {:7} calls  p50 {p50:9.1?}  p99 {p99:9.1?}  p99.9 {p999:9.1?}",
            report.calls()
        );
    };
    show(
        "random",
        scenario.start(Random::client).measure(warm_up, time),
    );
    show(
        "least in flight",
        scenario.start(LeastInFlight::client).measure(warm_up, time),
    );
    show(
        "what it last said",
        scenario.start(LastSaid::client).measure(warm_up, time),
    );
}
