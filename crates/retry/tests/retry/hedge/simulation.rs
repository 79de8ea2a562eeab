//! What hedges come to on a fleet: the mesh's balancer with and without them, in virtual time.
//!
//! `cargo run --release -p tower-mesh-retry --example hedge_or_not` shows more of it.

use std::time::Duration;

use tower::Layer;
use tower_mesh_balance::{Balance, BalanceLayer};
use tower_mesh_core::{ClassifyErrors, CloneIdempotent, Endpoint, Endpoints, Ratio, ServiceName};
use tower_mesh_retry::{Budget, Hedge, HedgeLayer};
use tower_mesh_sim::{Connection, Report, Scenario, Seat, Server, Work};

const SECOND: Duration = Duration::from_secs(1);

fn balance(seat: &Seat) -> (Endpoints, Balance<Connection>) {
    let endpoint = |server: usize| Endpoint::new(([10, 0, 0, 1], 1 + server as u16).into());
    let name = ServiceName::new("orders").unwrap();
    let members = seat.members().iter().map(|member| endpoint(member.server));
    let endpoints = Endpoints::fixed(name, members);
    let servers = seat.clone();
    let balance = BalanceLayer::new(endpoints.clone())
        .clock(seat.clock().clone())
        .rng(seat.rng().clone())
        .layer(move |endpoint: &Endpoint| {
            servers.connect(usize::from(endpoint.address().port()) - 1)
        });
    (endpoints, balance)
}

/// The mesh's balancer, and nothing else.
fn plain(seat: &Seat) -> Balance<Connection> {
    balance(seat).1
}

/// The same with hedges, everything by default.
fn hedged(seat: &Seat) -> Hedge<Balance<Connection>, CloneIdempotent, ClassifyErrors> {
    let (endpoints, balance) = balance(seat);
    HedgeLayer::new(Budget::new(Ratio::percent(10)))
        .elsewhere(endpoints)
        .clock(seat.clock().clone())
        .over(balance)
}

/// Servers with room, whose calls take 13 times the mean once in a hundred.
fn heavy_tail(seed: u64) -> Scenario {
    let mean = Duration::from_millis(10);
    Scenario::new(seed)
        .servers(vec![Server::new(); 10])
        .work(Work::LogNormal { mean, sigma: 1.8 })
        .clients(2)
        .utilisation(0.4)
}

fn amplification(report: &Report) -> f64 {
    report.attempts() as f64 / report.calls() as f64
}

#[test]
fn of_a_heavy_tail_the_99th_percentile_falls_to_half_for_one_call_of_twenty_more() {
    for seed in 1..=3 {
        let scenario = heavy_tail(seed);
        let without = scenario.start(plain).measure(2 * SECOND, 6 * SECOND);
        let with = scenario.start(hedged).measure(2 * SECOND, 6 * SECOND);
        let [before, after] = [&without, &with].map(|report| report.latency(0.99));
        assert!(after * 2 < before, "{seed}: {before:?}, {after:?}");
        let more = amplification(&with);
        assert!((1.02..1.08).contains(&more), "{seed}: {more}");
        assert_eq!((with.failed(), with.unfinished()), (0, 0));
    }
}

#[test]
fn when_all_servers_hang_hedges_add_no_more_than_the_budget_and_then_nothing() {
    for seed in 1..=3 {
        let mut sim = heavy_tail(seed).rate(400.0).start(hedged);
        sim.run(10 * SECOND);
        (0..10).for_each(|server| sim.hang(server));
        sim.reset();
        sim.run(10 * SECOND);
        let more = amplification(&sim.report());
        // A tenth of the calls, and of those of the second before.
        assert!((1.05..=1.11).contains(&more), "{seed}: {more}");
        // After that nothing is known of the service any more.
        sim.run(15 * SECOND);
        sim.reset();
        sim.run(5 * SECOND);
        assert_eq!(amplification(&sim.report()), 1.0, "{seed}");
    }
}

#[test]
fn one_server_that_hangs_is_a_percentile_and_not_the_end_of_calls() {
    let run = |mut sim: tower_mesh_sim::Simulation<_>| {
        sim.run(5 * SECOND);
        sim.hang(3);
        sim.measure(Duration::ZERO, 10 * SECOND)
    };
    let with = run(heavy_tail(1).start(hedged));
    assert_eq!(with.unfinished(), 0);
    let mut without = heavy_tail(1).start(plain);
    without.run(5 * SECOND);
    without.hang(3);
    assert!(without.measure(Duration::ZERO, 10 * SECOND).unfinished() > 0);
}
