//! Servers that cannot be reached for a while: packets to and from them are lost.

use crate::world::{BARE, CLIENT, DEFAULTS, Event, Report, S, SERVERS, run};

/// From the fifth second to the tenth.
const ONE_OF_THREE: [Event; 2] = [
    (5, |sim| sim.partition(CLIENT, SERVERS[0])),
    (10, |sim| sim.repair(CLIENT, SERVERS[0])),
];

/// From the fifth second to the eighth.
const ALL: [Event; 2] = [
    (5, |sim| {
        SERVERS
            .iter()
            .for_each(|server| sim.partition(CLIENT, *server))
    }),
    (8, |sim| {
        SERVERS
            .iter()
            .for_each(|server| sim.repair(CLIENT, *server))
    }),
];

/// Of a thousand.
fn few_are_lost(report: &Report) -> bool {
    report.lost(0..20) <= 3
}

#[test]
fn one_of_three_servers_that_cannot_be_reached_costs_few_calls_and_serves_again_after_the_repair() {
    let report = run(DEFAULTS, 20, &ONE_OF_THREE);
    assert!(few_are_lost(&report), "{report}");
    // Those that were on their way to it wait until their attempt's time is over.
    assert!(report.slower(0..20, S) <= 5, "{report}");
    assert_eq!(report.answered(6..10, SERVERS[0]), 0, "{report}");
    assert!(report.answered(5..10, "orders") >= 245, "{report}");
    assert!(report.answered(10..20, SERVERS[0]) >= 50, "{report}");
    // What stands in the status is the network's time, too.
    assert!(report.status.up >= 20 * S && report.status.up < 31 * S);

    let bare = run(BARE, 20, &ONE_OF_THREE);
    assert!(!few_are_lost(&bare) && bare.lost(5..10) >= 75, "{bare}");
    assert!(bare.answered(5..10, "orders") < 245, "{bare}");
}

#[test]
fn who_was_cut_off_from_everybody_is_served_within_two_seconds_of_the_repair() {
    let report = run(DEFAULTS, 20, &ALL);
    assert_eq!(report.answered(6..8, "orders"), 0, "{report}");
    // Breakers that all are open let probes pass, out of turn.
    assert!(report.answered(8..9, "orders") >= 1, "{report}");
    assert_eq!(report.lost(10..20), 0, "{report}");
    for server in SERVERS {
        assert!(report.answered(10..20, server) >= 100, "{report}");
    }
    // Nobody was flooded meanwhile: most calls were refused at once.
    let orders = &report.status.services[0];
    let failures: u64 = orders.endpoints.iter().map(|e| e.failures).sum();
    assert!(failures < 60, "{report}");
    assert!(orders.refused > 100, "{report}");

    let bare = run(BARE, 20, &ALL).status;
    let failures = bare.services[0].endpoints.iter().map(|e| e.failures);
    assert!(failures.sum::<u64>() >= 140);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let [a, b] = [(); 2].map(|()| run(DEFAULTS, 8, &ONE_OF_THREE).calls);
    assert_eq!(a, b);
}
