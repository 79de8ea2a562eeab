//! The real balancer over simulated servers in virtual time: what it does to latency, and to servers that fail.
//!
//! Several clients, each with its own view of the servers, as separate processes have. Open Poisson arrivals, log-normal
//! service times of 10 ms in the mean, four calls at a time on each server, 100 us on the wire each way. Seeded, so a run
//! is the same each time; what is asserted are ratios between strategies.

use std::time::Duration;

use tower_mesh_balance::Strategy;
use tower_mesh_core::Report;

use crate::world::{Server, Simulation};

const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(5);

/// One third is half as fast.
fn uneven() -> Vec<Server> {
    (0..30)
        .map(|nth| Server::with_speed(if nth % 3 == 0 { 0.5 } else { 1.0 }))
        .collect()
}

fn p99(strategy: Strategy, servers: Vec<Server>, antagonists: bool) -> f64 {
    let mut this = Simulation::new(strategy, 15, servers, 0.85);
    if antagonists {
        this = this.with_antagonists();
    }
    this.run(WARM_UP).run(MEASURED);
    let (p50, p99, p999) = (
        this.percentile(50.0),
        this.percentile(99.0),
        this.percentile(99.9),
    );
    println!(
        "{strategy:?} p50 {p50:.1} p99 {p99:.1} p99.9 {p999:.1} of {}",
        this.latencies.len()
    );
    p99
}

#[test]
fn on_an_uneven_fleet_the_best_of_three_beats_the_others() {
    let p99 = |strategy| p99(strategy, uneven(), false);
    let ours = p99(Strategy::BestOfThree);
    assert!(ours < 0.6 * p99(Strategy::LeastInFlight));
    assert!(ours < 0.95 * p99(Strategy::PeakEwma));
}

#[test]
fn where_load_moves_about_it_beats_them_by_more() {
    let p99 = |strategy| p99(strategy, uneven(), true);
    let ours = p99(Strategy::BestOfThree);
    assert!(ours < 0.5 * p99(Strategy::LeastInFlight));
    assert!(ours < 0.7 * p99(Strategy::PeakEwma));
}

#[test]
fn where_load_moves_about_servers_that_say_how_busy_they_are_are_called_better_still() {
    let p99 = |strategy| p99(strategy, uneven(), true);
    assert!(p99(Strategy::Reported) < 0.9 * p99(Strategy::BestOfThree));
}

// row 34
#[test]
fn a_server_that_lies_about_its_load_draws_no_crowd_and_harms_nobody_else() {
    let idle = Report::new(0, Duration::from_micros(1));
    let swamped = Report::new(u32::MAX, Duration::MAX).with_failing(1.0);
    let nothing = Report::new(0, Duration::ZERO);
    for (lie, least, most) in [(idle, 0.9, 1.4), (swamped, 0.1, 0.3), (nothing, 0.8, 1.2)] {
        let mut servers: Vec<_> = (0..30).map(|_| Server::new()).collect();
        servers[0].lie = Some(lie);
        let mut this = Simulation::new(Strategy::Reported, 15, servers, 0.7);
        this.run(WARM_UP).run(MEASURED);
        let (share, p99) = (this.share_of(0), this.percentile(99.0));
        let peak = this.servers[0].most;
        println!("{lie:?}: {share:.2} of its share, {peak} at once, p99 {p99:.1}");
        assert!(
            (least..most).contains(&share),
            "{lie:?}: {share} of its share"
        );
        assert!(p99 < 55.0 && peak < 20, "{lie:?}: {p99} ms, {peak} at once");
    }
}

#[test]
fn on_an_even_fleet_it_is_as_good() {
    let p99 = |strategy| p99(strategy, (0..30).map(|_| Server::new()).collect(), false);
    let ours = p99(Strategy::BestOfThree);
    assert!(ours < 1.05 * p99(Strategy::LeastInFlight));
    assert!(ours < 1.05 * p99(Strategy::PeakEwma));
}

#[test]
fn a_server_that_fails_fast_gets_a_fifth_of_its_share_and_all_of_it_when_it_has_recovered() {
    for strategy in [
        Strategy::BestOfThree,
        Strategy::PeakEwma,
        Strategy::LeastInFlight,
        Strategy::Reported,
    ] {
        let mut this = Simulation::new(strategy, 15, (0..30).map(|_| Server::new()).collect(), 0.7);
        let fair = 1.0 / 30.0;
        this.run(WARM_UP).servers[0].fails = true;
        let failing = this.run(MEASURED).share(|server| server.fails) / fair;
        this.servers[0].fails = false;
        this.run(Duration::from_secs(12)).run(MEASURED);
        let all: usize = this.servers.iter().map(|server| server.calls).sum();
        let recovered = this.servers[0].calls as f64 / all as f64 / fair;
        println!("{strategy:?} failing {failing:.3} recovered {recovered:.3}");
        assert!(failing < 0.2, "{strategy:?}: {failing} of its share");
        assert!(
            (recovered - 1.0).abs() < 0.1,
            "{strategy:?}: {recovered} of its share"
        );
    }
}

#[test]
fn servers_of_triple_weight_get_triple_the_calls() {
    let servers = || {
        let of = |(slots, weight)| Server {
            slots,
            weight,
            ..Server::new()
        };
        [(2, 1), (6, 3)]
            .map(of)
            .into_iter()
            .cycle()
            .take(20)
            .collect()
    };
    for strategy in [
        Strategy::BestOfThree,
        Strategy::PeakEwma,
        Strategy::LeastInFlight,
        Strategy::RoundRobin,
        Strategy::Weighted,
    ] {
        let mut this = Simulation::new(strategy, 5, servers(), 0.7);
        this.run(WARM_UP).run(MEASURED);
        let heavy = this.share(|server| server.weight == 3);
        println!("{strategy:?} {heavy:.3}");
        assert!((heavy / 0.75 - 1.0).abs() < 0.05, "{strategy:?}: {heavy}");
    }
}

// S5, smaller
#[test]
fn a_server_that_joins_is_not_flooded_and_has_its_share_when_the_slow_start_is_over() {
    let servers = (0..30).map(|_| Server::new()).collect();
    let mut this = Simulation::new(Strategy::BestOfThree, 60, servers, 0.85);
    this.run(WARM_UP).run(MEASURED);
    let usual = this.servers.iter().map(|server| server.most).max().unwrap();
    this.join(Server::new());
    this.run(Duration::from_secs(3));
    let (early, joined) = (this.share_of(30), this.servers[30].most);
    this.run(Duration::from_secs(27)).run(MEASURED);
    let late = this.share_of(30);
    println!("usual {usual} joined {joined}, then {early} and {late} of its share");
    assert!(
        joined <= usual / 2,
        "{joined} at once, where others have up to {usual}"
    );
    assert!(early < 0.35 && late > 0.9, "{early} and {late}");
}
