//! What is done to servers shows in what is measured.

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use tower::Service;
use tower_mesh_sim::{
    Antagonists, Call, Connection, Exchange, Failed, Member, Pauses, Policy, Scenario, Seat,
    Server, Work, policies::Random,
};

const MS: Duration = Duration::from_millis(1);

/// Calls of 10 ms and of nothing on the wire, on ten servers with room for all.
fn roomy() -> Scenario {
    Scenario::new(1)
        .servers(vec![Server::new().slots(100); 10])
        .work(Work::Fixed(10 * MS))
        .wire(Duration::ZERO)
        .rate(1_000.0)
}

#[test]
fn a_slow_server_takes_longer_and_the_others_do_not() {
    let mut sim = roomy().start(Random::client);
    sim.slow(0, 0.25);
    let report = sim.measure(100 * MS, 2_000 * MS);
    assert_eq!(report.latency(0.5), 10 * MS);
    assert_eq!(report.latency(0.97), 40 * MS);
}

#[test]
fn a_frozen_server_answers_when_it_is_thawed() {
    let mut sim = roomy().start(Random::client);
    sim.freeze(0);
    sim.run(300 * MS);
    assert!(sim.in_flight(0) > 20);
    sim.thaw(0);
    sim.drain();
    let report = sim.report();
    assert_eq!(report.unfinished(), 0);
    assert!(report.latency(1.0) > 250 * MS && report.latency(1.0) <= 310 * MS);
}

#[test]
fn a_server_that_fails_does_so_at_once_and_is_counted() {
    let mut sim = roomy().start(Random::client);
    sim.fail(0, Duration::ZERO);
    let report = sim.measure(100 * MS, 5_000 * MS);
    assert!((report.error_share() - 0.1).abs() < 0.02, "{report:?}");
    assert_eq!(report.servers()[0].failures, report.failed());
    assert_eq!(report.servers()[1].failures, 0);
}

#[test]
fn antagonists_and_pauses_take_their_part_of_the_time() {
    let half = Antagonists::new().share(0.5).speed(0.5).every(100 * MS);
    let mut sim = roomy().antagonists(half).start(Random::client);
    let mean = sim.measure(1_000 * MS, 20_000 * MS).mean_latency();
    assert!(mean > 14 * MS && mean < 16 * MS, "{mean:?}");

    let pauses = Pauses::new(100 * MS, 1_000 * MS);
    let mut sim = roomy().pauses(pauses).start(Random::client);
    let report = sim.measure(1_000 * MS, 50_000 * MS);
    let late = |share: f64| report.latency(share) > 11 * MS;
    // One of ten servers stands still for a tenth of the time.
    assert!(!late(0.988) && late(0.992), "{:?}", report.latency(0.988));
}

/// A policy that hears who joins and leaves, and sends all calls to the newest.
#[derive(Default)]
struct Newest(Arc<Mutex<Vec<Vec<Member>>>>);

struct ToNewest(Connection);

impl Policy for Newest {
    type Service = ToNewest;

    fn client(&mut self, seat: &Seat) -> ToNewest {
        self.0
            .lock()
            .expect("nobody panics with it")
            .push(seat.members().to_vec());
        ToNewest(seat.connections().pop().expect("a member"))
    }

    fn changed(&mut self, seat: &Seat, service: &mut ToNewest) {
        *service = self.client(seat);
    }
}

impl Service<Call> for ToNewest {
    type Response = tower_mesh_sim::Answer;
    type Error = Failed;
    type Future = Exchange;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Exchange {
        self.0.call(call)
    }
}

#[test]
fn clients_hear_who_joins_and_who_leaves() {
    let heard = Arc::default();
    let mut sim = roomy().clients(1).start(Newest(Arc::clone(&heard)));
    sim.run(100 * MS);
    let server = sim.join(Server::new().slots(100).weight(3));
    assert_eq!(server, 10);
    sim.reset();
    sim.run(100 * MS);
    let report = sim.report();
    assert_eq!(report.servers()[10].attempts, report.calls());
    sim.leave(10);
    sim.run(100 * MS);
    let heard = heard.lock().expect("nobody panics with it");
    let sizes: Vec<_> = heard.iter().map(Vec::len).collect();
    assert_eq!(sizes, [10, 11, 10]);
    assert_eq!((heard[1][10].server, heard[1][10].weight), (10, 3));
}
