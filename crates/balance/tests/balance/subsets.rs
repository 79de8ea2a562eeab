//! Each client calls some of the endpoints only.

use std::{collections::BTreeSet, num::NonZeroUsize, sync::Arc};

use tokio_test::{assert_ready, task};
use tower::{Layer, Service};
use tower_mesh_balance::{Balance, BalanceLayer, NoEndpoint, Reason, Strategy, Subset, Takes};
use tower_mesh_core::{JudgeKind, Shut, Standing, Weight};

use crate::fleet::{Backend, Fleet, Says, endpoint};

const FIVE: NonZeroUsize = NonZeroUsize::new(5).expect("not zero");

fn layer(fleet: &Fleet, client: &str) -> BalanceLayer {
    let subset = Subset::of(client).size(FIVE);
    fleet.layer().strategy(Strategy::Weighted).subset(subset)
}

fn call(balance: &mut Balance<Backend>, times: usize) {
    for _ in 0..times {
        assert!(assert_ready!(task::spawn(balance.call(())).poll()).is_ok());
    }
}

/// Whose service was made.
fn made(fleet: &Fleet, ports: impl IntoIterator<Item = u16>) -> BTreeSet<u16> {
    let ports = ports.into_iter();
    ports.filter(|port| fleet.seen(*port).made > 0).collect()
}

#[tokio::test(start_paused = true)]
async fn only_its_own_endpoints_are_connected_to_and_each_gets_calls_by_its_weight() {
    let weighs = |port: u16| endpoint(port).with_weight(Weight::new(1 + 2 * (port % 2)));
    let fleet = Fleet::of((1..=40).map(weighs));
    let mut balance = layer(&fleet, "a").layer(fleet.connect());
    call(&mut balance, 20_000);
    let made = made(&fleet, 1..=40);
    assert_eq!(made.len(), 5);
    let total: usize = made.iter().map(|port| 1 + 2 * usize::from(port % 2)).sum();
    for port in 1..=40 {
        let weight = if made.contains(&port) {
            1 + 2 * usize::from(port % 2)
        } else {
            0
        };
        let fair = (20_000 * weight / total) as f64;
        let calls = fleet.calls(port) as f64;
        assert!(
            (calls - fair).abs() <= 0.1 * fair,
            "{port}: {calls}, fair {fair}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn when_one_goes_another_takes_its_place_and_the_others_keep_their_connections() {
    let fleet = Fleet::new(1..=40);
    let mut balance = layer(&fleet, "a").layer(fleet.connect());
    let before = made(&fleet, 1..=40);
    let gone = *before.first().unwrap();
    fleet.publish((1..=40).filter(|port| *port != gone).map(endpoint));
    call(&mut balance, 1_000);
    let after = made(&fleet, 1..=40);
    assert_eq!(after.difference(&before).count(), 1, "one is new");
    for port in after.iter().filter(|port| **port != gone) {
        assert_eq!(fleet.seen(*port).made, 1);
        assert!(fleet.calls(*port) > 0);
    }
    assert_eq!(fleet.calls(gone), 0);
}

#[tokio::test(start_paused = true)]
async fn each_priority_has_its_own_and_what_the_first_cannot_take_goes_to_the_second() {
    let second = |port| endpoint(port).with_priority(1);
    let fleet = Fleet::of((1..=20).map(endpoint).chain((21..=40).map(second)));
    let mut balance = layer(&fleet, "a").layer(fleet.connect());
    let (first, second) = (made(&fleet, 1..=20), made(&fleet, 21..=40));
    assert_eq!((first.len(), second.len()), (5, 5));
    let standing = Standing::Shut(Shut::new(JudgeKind::Outlier, None));
    for port in first {
        fleet
            .at(port)
            .vitals()
            .attach(JudgeKind::Outlier, |handle| {
                handle.set(true);
                Arc::new(Says::new(standing))
            });
    }
    call(&mut balance, 1_000);
    let calls: usize = second.into_iter().map(|port| fleet.calls(port)).sum();
    assert_eq!(calls, 1_000);
}

#[tokio::test(start_paused = true)]
async fn an_explanation_and_a_refusal_say_who_is_left_to_others() {
    let fleet = Fleet::new(1..=12);
    let layer = layer(&fleet, "a");
    let mut balance = layer.layer(fleet.connect());
    let explained = layer.explain();
    let others = explained.endpoints.iter();
    let others = others.filter(|of| of.takes == Takes::NotInSubset).count();
    assert_eq!((others, explained.levels[0].endpoints), (7, 5));
    assert!(explained.to_string().contains("left to other clients"));
    for port in made(&fleet, 1..=12) {
        fleet.at(port).vitals().gate().set_draining(true);
    }
    let error = assert_ready!(task::spawn(balance.call(())).poll()).unwrap_err();
    let none: &NoEndpoint = error.downcast_ref().unwrap();
    let out: Vec<_> = none.out().collect();
    assert!(out.contains(&(Reason::NotInSubset, 7)), "{error}");
    assert!(
        error.to_string().contains("7 left to other clients"),
        "{error}"
    );
}
