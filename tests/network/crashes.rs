//! A server dies, and is started again.

use crate::world::{BARE, DEFAULTS, Event, Report, S, SERVERS, run};

/// From the fifth second to the tenth.
const CRASH: [Event; 2] = [
    (5, |sim| sim.crash(SERVERS[0])),
    (10, |sim| sim.bounce(SERVERS[0])),
];

/// Of 1,500.
fn few_are_lost(report: &Report) -> bool {
    report.lost(0..30) <= 3
}

#[test]
fn a_server_that_crashes_costs_few_calls_and_is_called_over_new_connections_when_it_is_back() {
    let report = run(DEFAULTS, 30, &CRASH);
    assert!(few_are_lost(&report), "{report}");
    assert!(report.slower(0..30, S) <= 5, "{report}");
    assert_eq!(report.answered(6..10, SERVERS[0]), 0, "{report}");
    assert!(report.answered(5..10, "orders") >= 245, "{report}");
    assert_eq!(report.answered(10..30, "orders-1, start 1"), 0, "{report}");
    assert!(
        report.answered(20..30, "orders-1, start 2") >= 100,
        "{report}"
    );
    assert!(report.connections["orders-1, start 2"] >= 1, "{report}");

    let bare = run(BARE, 30, &CRASH);
    assert!(!few_are_lost(&bare) && bare.lost(5..10) >= 75, "{bare}");
}

#[test]
fn servers_that_are_restarted_one_after_the_other_lose_few_calls() {
    let rolling: [Event; 6] = [
        (3, |sim| sim.crash(SERVERS[0])),
        (5, |sim| sim.bounce(SERVERS[0])),
        (15, |sim| sim.crash(SERVERS[1])),
        (17, |sim| sim.bounce(SERVERS[1])),
        (27, |sim| sim.crash(SERVERS[2])),
        (29, |sim| sim.bounce(SERVERS[2])),
    ];
    let report = run(DEFAULTS, 30, &rolling);
    assert!(few_are_lost(&report), "{report}");
    let bare = run(BARE, 30, &rolling);
    assert!(!few_are_lost(&bare), "{bare}");
}
