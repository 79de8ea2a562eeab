//! Who comes first, and who takes what those cannot.

use std::{sync::Arc, time::Duration};

use tokio_test::{assert_ready, task};
use tower::{Layer, Service};
use tower_mesh_balance::{Balance, BalanceLayer, Strategy};
use tower_mesh_core::{Endpoint, JudgeKind, Shut, Standing};

use crate::fleet::{Backend, Does, Fleet, Says, endpoint};

const CALLS: usize = 20_000;

/// A thousand ports for each of these, so many of them in use.
fn fleet<const N: usize>(each: usize, describe: [fn(Endpoint) -> Endpoint; N]) -> Fleet {
    let of = |(nth, describe): (usize, &fn(Endpoint) -> Endpoint)| {
        let describe = *describe;
        (0..each).map(move |i| describe(endpoint((1_000 * (nth + 1) + i) as u16)))
    };
    let all: Vec<_> = describe.iter().enumerate().flat_map(of).collect();
    Fleet::of(all)
}

fn layer(fleet: &Fleet) -> BalanceLayer {
    fleet.layer().strategy(Strategy::Weighted)
}

/// Ejects so many of a group, beginning with its first.
fn eject(fleet: &Fleet, group: usize, endpoints: usize) {
    let shut = Standing::Shut(Shut::new(JudgeKind::Outlier, None));
    for port in (1_000 * group..).take(endpoints) {
        let vitals = fleet.at(port as u16);
        vitals.vitals().attach(JudgeKind::Outlier, |handle| {
            handle.set(true);
            Arc::new(Says::new(shut))
        });
    }
}

/// The percentage of calls that each group gets.
fn shares<const N: usize>(fleet: &Fleet, balance: &mut Balance<Backend>) -> [f64; N] {
    let calls = |group: usize| -> usize {
        let ports = 1_000 * (group + 1)..1_000 * (group + 1) + 1_000;
        ports.map(|port| fleet.calls(port as u16)).sum()
    };
    let before: [usize; N] = std::array::from_fn(calls);
    for _ in 0..CALLS {
        assert!(assert_ready!(task::spawn(balance.call(())).poll()).is_ok());
    }
    std::array::from_fn(|group| (calls(group) - before[group]) as f64 * 100.0 / CALLS as f64)
}

/// Changes of many endpoints are seen within a millisecond.
async fn a_moment() {
    tokio::time::advance(Duration::from_millis(1)).await;
}

fn near<const N: usize>(shares: [f64; N], percent: [f64; N]) {
    let is_near = |(share, percent): (&f64, &f64)| {
        let exact = *percent == 0.0 || *percent == 100.0;
        (share - percent).abs() <= if exact { 0.0 } else { 1.2 }
    };
    assert!(
        shares.iter().zip(&percent).all(is_near),
        "{shares:?} and not {percent:?}"
    );
}

// scenario 15
#[tokio::test(start_paused = true)]
async fn the_second_priority_takes_what_the_healthy_of_the_first_cannot() {
    let fleet = fleet(100, [|e| e, |e| e.with_priority(1)]);
    let mut balance = layer(&fleet).layer(fleet.connect());
    near(shares(&fleet, &mut balance), [100.0, 0.0]);
    for (out, percent) in [
        (28, [100.0, 0.0]),
        (29, [99.4, 0.6]),
        (50, [70.0, 30.0]),
        (100, [0.0, 100.0]),
    ] {
        eject(&fleet, 1, out);
        a_moment().await;
        near(shares(&fleet, &mut balance), percent);
    }
}

#[tokio::test(start_paused = true)]
async fn a_priority_with_most_of_its_endpoints_out_does_not_panic_while_another_has_room() {
    let fleet = fleet(20, [|e| e, |e| e.with_priority(1)]);
    let layer = layer(&fleet);
    let mut balance = layer.layer(fleet.connect());
    eject(&fleet, 1, 15);
    near(shares(&fleet, &mut balance), [35.0, 65.0]);
    assert_eq!(fleet.calls(1_000), 0, "it is ejected");
    assert!(!layer.is_panicking());
}

// scenario 15
#[tokio::test(start_paused = true)]
async fn priorities_that_are_all_out_for_the_most_part_panic_and_share_the_calls() {
    let fleet = fleet(20, [|e| e, |e| e.with_priority(1)]);
    let layer = layer(&fleet);
    let mut balance = layer.layer(fleet.connect());
    eject(&fleet, 1, 15);
    eject(&fleet, 2, 15);
    near(shares(&fleet, &mut balance), [50.0, 50.0]);
    let least = (1_000..1_020)
        .chain(2_000..2_020)
        .map(|port| fleet.calls(port))
        .min();
    assert!(
        least > Some(CALLS / 80),
        "all of them are called: {least:?}"
    );
    assert!(layer.is_panicking());
}

#[tokio::test(start_paused = true)]
async fn only_the_priority_that_is_out_for_the_most_part_panics() {
    let fleet = fleet(20, [|e| e, |e| e.with_priority(1)]);
    let mut balance = layer(&fleet).layer(fleet.connect());
    eject(&fleet, 1, 19);
    eject(&fleet, 2, 8);
    // 7 % and 84 % are not all.
    near(shares(&fleet, &mut balance), [7.7, 92.3]);
    assert!(fleet.calls(1_000) > 0, "it panics");
    assert_eq!(fleet.calls(2_000), 0, "more than half are left");
}

#[tokio::test(start_paused = true)]
async fn with_nobody_healthy_anywhere_somebody_is_still_called() {
    let fleet = fleet(3, [|e| e, |e| e.with_priority(1)]);
    let mut balance = layer(&fleet).layer(fleet.connect());
    eject(&fleet, 1, 3);
    eject(&fleet, 2, 3);
    near(shares(&fleet, &mut balance), [100.0, 0.0]);
    for port in 1_000..1_003 {
        fleet.at(port).vitals().gate().set_draining(true);
    }
    near(shares(&fleet, &mut balance), [0.0, 100.0]);
    for port in 2_000..2_003 {
        fleet.at(port).vitals().gate().set_draining(true);
    }
    assert!(assert_ready!(task::spawn(balance.call(())).poll()).is_err());
}

const ZONES: [fn(Endpoint) -> Endpoint; 4] = [
    |e| e.with_zone("eu/a"),
    |e| e.with_zone("eu/b"),
    |e| e.with_zone("us/a"),
    |e| e,
];

// scenario 32
#[tokio::test(start_paused = true)]
async fn calls_stay_in_their_zone_then_in_their_region() {
    let fleet = fleet(10, ZONES);
    let mut balance = layer(&fleet).zone("eu/a").layer(fleet.connect());
    for (out, percent) in [
        (0, [100.0, 0.0, 0.0, 0.0]),
        (2, [100.0, 0.0, 0.0, 0.0]),
        (5, [70.0, 30.0, 0.0, 0.0]),
        (10, [0.0, 100.0, 0.0, 0.0]),
    ] {
        eject(&fleet, 1, out);
        a_moment().await;
        near(shares(&fleet, &mut balance), percent);
    }
    eject(&fleet, 2, 5);
    a_moment().await;
    near(shares(&fleet, &mut balance), [0.0, 70.0, 15.0, 15.0]);
}

#[tokio::test(start_paused = true)]
async fn unless_one_says_where_one_is_zones_do_not_count() {
    let fleet = fleet(10, ZONES);
    let here = layer(&fleet);
    let mut balance = here.layer(fleet.connect());
    near(shares(&fleet, &mut balance), [25.0; 4]);
    let mut near_us = here.clone().zone("us/b").again(&balance);
    near(shares(&fleet, &mut near_us), [0.0, 0.0, 100.0, 0.0]);
    assert_eq!(fleet.seen(1_000).made, 1, "by the same services");
    near(
        shares(&fleet, &mut here.zone("us/b").zone("").again(&near_us)),
        [25.0; 4],
    );
}

#[tokio::test(start_paused = true)]
async fn a_zone_with_few_endpoints_is_joined_with_its_region() {
    let fleet = fleet(4, ZONES);
    let few = layer(&fleet).zone("eu/a").min_nearby(5);
    let mut balance = few.layer(fleet.connect());
    near(shares(&fleet, &mut balance), [50.0, 50.0, 0.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn the_endpoints_own_priority_counts_more_than_where_they_are() {
    let fleet = fleet(
        5,
        [
            |e: Endpoint| e.with_zone("eu/a").with_priority(1),
            |e| e.with_zone("us/a"),
        ],
    );
    let mut balance = layer(&fleet).zone("eu/a").layer(fleet.connect());
    near(shares(&fleet, &mut balance), [0.0, 100.0]);
}

#[tokio::test(start_paused = true)]
async fn an_update_that_moves_endpoints_to_another_priority_moves_the_calls() {
    let fleet = fleet(3, [|e| e, |e| e]);
    let mut balance = layer(&fleet).layer(fleet.connect());
    near(shares(&fleet, &mut balance), [50.0, 50.0]);
    let second = (2_000..2_003).map(|port| endpoint(port).with_priority(7));
    fleet.publish((1_000..1_003).map(endpoint).chain(second));
    near(shares(&fleet, &mut balance), [100.0, 0.0]);
    assert_eq!(fleet.seen(2_000).made, 1, "its service is kept");
}

#[test]
fn a_call_goes_to_the_next_priority_before_it_goes_where_it_has_been() {
    let fleet = fleet(2, [|e| e, |e| e.with_priority(1)]);
    let mut balance = layer(&fleet).layer(fleet.connect());
    fleet.let_it(1_000, Does::NotReady);
    fleet.let_it(1_001, Does::NotReady);
    for _ in 0..20 {
        let answer = assert_ready!(task::spawn(balance.call(())).poll());
        assert!(answer.is_ok_and(|port| port >= 2_000));
    }
}
