//! The same seed gives the same result to the bit, and every policy is given the same calls.

use std::time::Duration;

use tower_mesh_sim::{
    Antagonists, Pauses, Report, Scenario, Server,
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

#[test]
fn every_policy_is_given_the_same_calls() {
    let scenario = scenario(5);
    let calls = |report: Report| (report.calls(), report.answered());
    let random = calls(scenario.start(Random::client).measure(SECOND, 2 * SECOND));
    let turns = calls(
        scenario
            .start(RoundRobin::client)
            .measure(SECOND, 2 * SECOND),
    );
    assert_eq!(random, turns);

    // With a slot for each call and nothing that disturbs, a call takes its own work only: the latencies are the same.
    let free = Scenario::new(5)
        .servers(vec![Server::new().slots(1_000); 5])
        .clients(3)
        .rate(500.0);
    let random = free.start(Random::client).measure(SECOND, 2 * SECOND);
    let turns = free.start(RoundRobin::client).measure(SECOND, 2 * SECOND);
    assert_eq!(random.latency(0.5), turns.latency(0.5));
    assert_eq!(random.mean_latency(), turns.mean_latency());
}
