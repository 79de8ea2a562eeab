//! Every call ends exactly once, and nothing of it stays.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tower::Service;
use tower_mesh_core::Sleep;
use tower_mesh_sim::{
    Answer, Antagonists, Call, Connection, Exchange, Pauses, Scenario, Seat, Server, Work,
    policies::Random,
};

const MS: Duration = Duration::from_millis(1);

/// Goes to a random server, gives up after 15 ms and tries another one, twice at most.
struct Impatient {
    servers: Vec<Connection>,
    seat: Chance,
}

#[derive(Clone)]
struct Chance {
    rng: tower_mesh_core::Rng,
    clock: tower_mesh_core::Clock,
}

struct Tries {
    exchange: Exchange,
    limit: Pin<Box<Sleep>>,
    left: usize,
    seat: Chance,
    servers: Vec<Connection>,
}

impl Impatient {
    fn client(seat: &Seat) -> Self {
        Self {
            servers: seat.connections(),
            seat: Chance {
                rng: seat.rng().clone(),
                clock: seat.clock().clone(),
            },
        }
    }
}

fn attempt(servers: &[Connection], seat: &Chance) -> (Exchange, Pin<Box<Sleep>>) {
    let exchange = servers[seat.rng.below(servers.len())].send();
    (exchange, Box::pin(seat.clock.sleep(15 * MS)))
}

impl Service<Call> for Impatient {
    type Response = Answer;
    type Error = &'static str;
    type Future = Tries;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Call) -> Tries {
        let (exchange, limit) = attempt(&self.servers, &self.seat);
        Tries {
            exchange,
            limit,
            left: 2,
            seat: self.seat.clone(),
            servers: self.servers.clone(),
        }
    }
}

impl Future for Tries {
    type Output = Result<Answer, &'static str>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Poll::Ready(answer) = Pin::new(&mut self.exchange).poll(cx) {
                return Poll::Ready(answer.map_err(|_| "failed"));
            }
            ready!(self.limit.as_mut().poll(cx));
            let Some(left) = self.left.checked_sub(1) else {
                return Poll::Ready(Err("too slow"));
            };
            let (exchange, limit) = attempt(&self.servers, &self.seat);
            (self.left, self.exchange, self.limit) = (left, exchange, limit);
        }
    }
}

fn scenario() -> Scenario {
    Scenario::new(11)
        .servers(vec![Server::new().queue(20); 6])
        .clients(3)
        .utilisation(0.5)
        .antagonists(Antagonists::new())
        .pauses(Pauses::new(200 * MS, 500 * MS))
}

#[test]
fn every_call_ends_once_whatever_goes_wrong() {
    let mut sim = scenario().start(Impatient::client);
    sim.run(500 * MS);
    sim.fail(0, MS);
    sim.hang(1);
    sim.slow(2, 0.1);
    sim.run(1_000 * MS);
    sim.heal(0);
    sim.heal(1);
    sim.slow(2, 1.0);
    sim.run(500 * MS);
    sim.drain();
    let report = sim.report();
    let (answered, failed) = (report.answered(), report.failed());
    assert!(answered > 300 && failed > 300, "{answered}, {failed}");
    assert_eq!(answered + failed, report.calls());
    assert_eq!(report.unfinished(), 0);
    assert!(report.attempts() > report.calls());
    // What clients have given up is still with the servers, in 20 places and 4 slots each: it ends there.
    sim.run(10_000 * MS);
    sim.drain();
    assert!(sim.attempts() <= 24 * 6, "{}", sim.attempts());
}

#[test]
fn work_for_those_who_have_gone_is_told_apart() {
    let fixed = |ms: u32| {
        let scenario = Scenario::new(3).work(Work::Fixed(ms * MS)).rate(20.0);
        let mut sim = scenario.start(Impatient::client);
        sim.run(2_000 * MS);
        sim.drain();
        let server = sim.servers()[0].clone();
        (server.attempts, server.answers, server.unheard)
    };
    // Clients wait for 15 ms, and try three times.
    let (attempts, answers, unheard) = fixed(10);
    assert_eq!((answers, unheard), (attempts, 0));
    let (attempts, answers, unheard) = fixed(20);
    assert_eq!(unheard, answers);
    assert!(answers > 60 && answers + 3 >= attempts);
}

#[test]
fn what_began_before_the_measurement_is_not_in_it() {
    let mut sim = scenario().start(Random::client);
    sim.run(500 * MS);
    sim.reset();
    sim.drain();
    let report = sim.report();
    assert_eq!(
        (report.calls(), report.answered(), report.failed()),
        (0, 0, 0)
    );
    assert_eq!(sim.attempts(), 0);
}

#[test]
fn a_call_that_is_never_answered_is_left_over() {
    let mut sim = scenario().start(Random::client);
    (0..6).for_each(|server| sim.hang(server));
    sim.run(100 * MS);
    sim.drain();
    let report = sim.report();
    assert!(report.calls() > 0);
    assert_eq!(report.unfinished(), report.calls());
}
