//! S1 and S2 of the reference: the limit is what ends a storm.

#[path = "../../examples/storm/fleet.rs"]
#[allow(dead_code)] // The example shows more of it.
mod fleet;

use std::time::Duration;

use tower_mesh_limit::{Adaptive, adaptive::Why};

use self::fleet::{Fleet, Outage, Storm, Stretch, TWENTY_BY_TEN};

/// 800 calls a second when all is used.
const SMALL: Fleet = Fleet {
    seed: 7,
    clients: 4,
    servers: 4,
    slots: 2,
    load: 0.85,
    slowest: 1.0,
};

fn adaptive() -> Option<Adaptive> {
    Some(Adaptive::new())
}

/// Ten seconds of an outage, and the seconds after it.
fn after(outage: Outage, limit: fn() -> Option<Adaptive>) -> (Stretch, Vec<Stretch>) {
    let fleet = Fleet {
        // Half of it, for the time it takes.
        clients: 10,
        servers: 5,
        load: 0.85,
        ..TWENTY_BY_TEN
    };
    let mut storm = Storm::new(fleet, limit);
    storm.run(Duration::from_secs(1));
    storm.begin(outage);
    let during = storm.run(Duration::from_secs(10));
    storm.end(outage);
    (during, storm.seconds(4))
}

fn is_back(seconds: &[Stretch]) -> bool {
    seconds[2..].iter().all(|second| second.goodput() >= 0.95)
}

#[test]
fn the_limit_ends_the_storm_after_servers_stood_still() {
    let (during, seconds) = after(Outage::Hang, adaptive);
    assert!(is_back(&seconds), "{seconds:#?}");
    assert!(during.amplification() <= 1.2, "{during:?}");
    assert!(seconds.iter().all(|s| s.amplification() <= 1.1));
}

#[test]
fn without_the_limit_the_storm_does_not_end() {
    for outage in [Outage::Hang, Outage::Slow] {
        let (_, seconds) = after(outage, || None);
        assert!(!is_back(&seconds), "{outage:?} {seconds:#?}");
    }
}

#[test]
fn the_limit_ends_the_storm_after_servers_were_slow() {
    let (_, seconds) = after(Outage::Slow, adaptive);
    assert!(is_back(&seconds), "{seconds:#?}");
}

#[test]
fn servers_that_refused_have_all_their_calls_when_they_are_back() {
    let (during, seconds) = after(Outage::Refuse, adaptive);
    assert!(is_back(&seconds), "{seconds:#?}");
    assert!(during.amplification() <= 1.2, "{during:?}");
}

#[test]
fn slow_servers_work_for_callers_who_are_still_there() {
    let useful = |limit: fn() -> Option<Adaptive>| {
        let mut storm = Storm::new(SMALL, limit);
        storm.run(Duration::from_secs(3));
        storm.begin(Outage::Slow);
        let stretch = storm.run(Duration::from_secs(30));
        stretch.answered as f64 / (storm.fleet.capacity() / 4.0 * 30.0)
    };
    let (with, without) = (useful(adaptive), useful(|| None));
    assert!(with >= 0.8, "{with}");
    assert!(without < 0.2, "{without}");
}

#[test]
fn while_nothing_is_wrong_nobody_is_refused_and_no_limit_moves() {
    for fleet in [
        Fleet {
            load: 0.95,
            ..SMALL
        },
        Fleet {
            slowest: 0.5,
            ..SMALL
        },
        Fleet {
            clients: 1,
            ..SMALL
        },
        Fleet {
            clients: 60,
            ..SMALL
        },
    ] {
        let mut storm = Storm::new(fleet, adaptive);
        let stretch = storm.run(Duration::from_secs(10));
        assert_eq!((stretch.refused, stretch.failed), (0, 0), "{fleet:?}");
        assert!(
            storm
                .limits()
                .iter()
                .all(|&limit| limit == (1_024, Why::Start))
        );
    }
}
