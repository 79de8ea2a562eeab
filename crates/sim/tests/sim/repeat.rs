//! The same seed gives the same result to the bit, and every policy is given the same calls.

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use tower::Service;
use tower_mesh_sim::{
    Answer, Antagonists, Call, Connection, Exchange, Failed, Pauses, Report, Scenario, Seat,
    Server,
    policies::{LeastInFlight, Random, RoundRobin},
};

const SECOND: Duration = Duration::from_secs(1);

/// Everything that is left to chance, at once.
fn scenario(seed: u64) -> Scenario {
    Scenario::new(seed)
        .servers((0..12).map(|nth| Server::new().speed(if nth % 3 == 0 { 0.5 } else { 1.0 })))
        .clients(7)
        .utilisation(0.6)
        .antagonists(Antagonists::new())
        .pauses(Pauses::new(SECOND / 4, SECOND))
}

fn report(seed: u64) -> Report {
    let mut sim = scenario(seed).start(LeastInFlight::client);
    sim.run(SECOND);
    sim.fail(3, Duration::from_micros(50));
    sim.run(SECOND);
    sim.heal(3);
    sim.join(Server::new());
    sim.measure(SECOND, 2 * SECOND)
}

#[test]
fn the_same_seed_gives_the_same_report_to_the_bit() {
    assert_eq!(report(1), report(1));
}

#[test]
fn another_seed_gives_another_report() {
    assert_ne!(report(1), report(2));
}

/// Notes which calls a client's service is given.
struct Noted<S> {
    service: S,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl<S: Service<Call>> Service<Call> for Noted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> S::Future {
        let mut calls = self.calls.lock().expect("nobody panics with it");
        calls.push(call);
        self.service.call(call)
    }
}

/// The calls of two seconds, and what came of them.
fn calls<S: Service<Call>>(
    scenario: &Scenario,
    mut client: impl FnMut(&Seat) -> S,
) -> (Vec<Call>, Report) {
    let calls = Arc::default();
    let noted = |seat: &Seat| Noted {
        service: client(seat),
        calls: Arc::clone(&calls),
    };
    let report = scenario.start(noted).measure(SECOND, 2 * SECOND);
    let calls = calls.lock().expect("nobody panics with it");
    (calls.clone(), report)
}

#[test]
fn every_policy_is_given_the_same_calls() {
    let scenario = scenario(5);
    let (random, _) = calls(&scenario, Random::client);
    let (turns, _) = calls(&scenario, RoundRobin::client);
    assert_eq!(random, turns);

    // With a slot for each call and nothing that disturbs, a call takes its own work only: the latencies are the same.
    let free = Scenario::new(5)
        .servers(vec![Server::new().slots(1_000); 5])
        .clients(3)
        .rate(500.0);
    let (_, random) = calls(&free, Random::client);
    let (_, turns) = calls(&free, RoundRobin::client);
    let (_, twice) = calls(&free, |seat: &Seat| Twice(seat.connections()));
    for other in [turns, twice] {
        assert_eq!(random.latency(0.5), other.latency(0.5));
        assert_eq!(random.mean_latency(), other.mean_latency());
    }
}

/// Sends each call twice and waits for the first: the second has work of its own to do, and takes none of the next call.
struct Twice(Vec<Connection>);

impl Service<Call> for Twice {
    type Response = Answer;
    type Error = Failed;
    type Future = Exchange;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Call) -> Exchange {
        let first = self.0[0].send();
        drop(self.0[1].send());
        first
    }
}
