//! What a change of the endpoints does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    thread,
    time::Duration,
};

use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service};
use tower_mesh_balance::{BalanceLayer, SlowStart, Strategy};
use tower_mesh_core::{Endpoint, Resolution, Rng, Sampling, Shared, Weight};

use crate::fleet::{Does, Fleet, endpoint};

// scenario 27
#[tokio::test(start_paused = true)]
async fn what_is_removed_gets_no_new_calls_and_finishes_those_it_has_and_what_stays_is_not_made_anew()
 {
    let (a, b, c, d) = (1, 2, 3, 4);
    let fleet = Fleet::new([a, b, c]);
    let second = Duration::from_secs(1);
    for port in [a, b, c] {
        fleet.let_it(port, Does::AnswerAfter(second));
    }
    let mut balance = fleet.balance();
    let mut calls: Vec<_> = (0..9).map(|_| task::spawn(balance.call(()))).collect();
    calls
        .iter_mut()
        .for_each(|call| assert_pending!(call.poll()));
    assert_eq!([a, b, c].map(|port| fleet.calls(port)), [3; 3]);

    let gone = fleet.at(c);
    fleet.publish([
        endpoint(a),
        endpoint(b).with_weight(Weight::new(2)),
        endpoint(d),
    ]);
    for port in [a, b, d] {
        assert_eq!(fleet.seen(port).made, 1);
    }
    let before = fleet.calls(c);
    for _ in 0..100 {
        let mut call = task::spawn(balance.call(()));
        let _ = call.poll();
    }
    assert_eq!(fleet.calls(c), before, "no new calls");

    let mut ports = Vec::new();
    for call in calls {
        ports.push(call.await.unwrap());
    }
    assert_eq!(
        ports.iter().filter(|port| **port == c).count(),
        3,
        "those in flight finish"
    );
    assert_eq!(gone.vitals().load().in_flight(), 0);
}

#[test]
fn a_call_made_before_an_update_and_polled_after_it_sees_the_update() {
    let fleet = Fleet::new([1, 2]);
    let mut balance = fleet.balance();
    let mut calls: Vec<_> = (0..20).map(|_| task::spawn(balance.call(()))).collect();
    fleet.publish([endpoint(2), endpoint(3)]);
    for call in &mut calls {
        assert_ne!(assert_ready!(call.poll()).unwrap(), 1);
    }
}

#[test]
fn the_service_of_a_removed_endpoint_is_dropped_and_an_endpoint_that_returns_gets_a_new_one() {
    let fleet = Fleet::new([1, 2]);
    let alive = Arc::new(());
    let make = {
        let alive = alive.clone();
        let connect = fleet.connect();
        move |endpoint: &Endpoint| {
            let (alive, service) = (alive.clone(), connect(endpoint));
            tower::util::MapResponse::new(service, move |port: u16| {
                let _ = &alive;
                port
            })
        }
    };
    let _balance = fleet.layer().layer(make);
    assert_eq!(Arc::strong_count(&alive), 4);
    fleet.publish([endpoint(1)]);
    assert_eq!(Arc::strong_count(&alive), 3);
    fleet
        .endpoints
        .publish(Resolution::Found, vec![fleet.at(1), endpoint(2)]);
    assert_eq!((fleet.seen(1).made, fleet.seen(2).made), (1, 2));
}

#[test]
fn an_endpoint_of_weight_zero_keeps_its_service_and_gets_no_calls() {
    let fleet = Fleet::new([1, 2]);
    let mut balance = fleet.balance();
    fleet.publish([endpoint(1).with_weight(Weight::new(0)), endpoint(2)]);
    for _ in 0..50 {
        assert_eq!(
            assert_ready!(task::spawn(balance.call(())).poll()).unwrap(),
            2
        );
    }
    fleet.publish([endpoint(1), endpoint(2)]);
    assert!((0..50).any(|_| assert_ready!(task::spawn(balance.call(())).poll()).unwrap() == 1));
    assert_eq!(fleet.seen(1).made, 1);

    let none = [1, 2].map(|port| endpoint(port).with_weight(Weight::new(0)));
    fleet.publish(none);
    assert_ready!(task::spawn(balance.call(())).poll()).unwrap();
}

#[test]
fn weights_survive_an_update_of_others() {
    let fleet = Fleet::of([endpoint(1).with_weight(Weight::new(0)), endpoint(2)]);
    let mut balance = fleet.balance();
    fleet.publish([
        endpoint(1).with_weight(Weight::new(0)),
        endpoint(2),
        endpoint(3),
    ]);
    for _ in 0..50 {
        assert_ne!(
            assert_ready!(task::spawn(balance.call(())).poll()).unwrap(),
            1
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_starts_at_the_median_of_its_peers() {
    let fleet = Fleet::new([1, 2, 3]);
    for (port, millis) in [(1, 10), (2, 20), (3, 900)] {
        fleet.let_it(port, Does::AnswerAfter(Duration::from_millis(millis)));
    }
    let mut balance = fleet.balance();
    for _ in 0..3 {
        balance.call(()).await.unwrap();
    }
    let latency = |port| fleet.at(port).vitals().load().latency_us();
    assert_eq!([1, 2, 3].map(latency), [10e3, 20e3, 900e3].map(Some));
    fleet.publish([1, 2, 3, 4].map(endpoint));
    assert_eq!(latency(4), Some(20e3));
    assert_eq!(latency(3), Some(900e3));
}

#[test]
fn order_does_not_matter_to_who_stays() {
    let rng = Rng::seeded(7);
    let fleet = Fleet::new(1..=50);
    let _balance = fleet.balance();
    let mut ports: Vec<u16> = (1..=50).collect();
    for next in 51..=150 {
        let gone = rng.below(ports.len());
        ports[gone] = next;
        for _ in 0..rng.below(4) {
            let (a, b) = (rng.below(50), rng.below(50));
            ports.swap(a, b);
        }
        fleet.publish(ports.iter().map(|port| endpoint(*port)));
    }
    assert!((1..=150).all(|port| fleet.seen(port).made == 1));
}

#[test]
fn the_pool_ends_with_the_last_balancer_and_holds_nothing_up() {
    let fleet = Fleet::new([1]);
    let holders = fleet.endpoints.holders();
    let balance = fleet.balance();
    let clone = balance.clone();
    drop(balance);
    assert!(
        fleet.endpoints.holders() > holders,
        "discovery goes on for the clone"
    );
    drop(clone);
    assert_eq!(fleet.endpoints.holders(), holders);
    fleet.publish([endpoint(2)]);
    assert_eq!(
        fleet.seen(2).made,
        0,
        "nobody is there to make services for"
    );
}

/// Callers on several threads while endpoints come and go: no call starts on an endpoint after the update that removed
/// it has returned, and none fails.
#[test]
fn no_call_starts_on_an_endpoint_after_its_removal() {
    const UPDATES: u64 = 300;
    let fleet = Fleet::new(1..=8);
    let gone_since: Arc<Vec<AtomicU64>> =
        Arc::new((0..1_000).map(|_| AtomicU64::new(u64::MAX)).collect());
    let now = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicUsize::new(0));
    let make = |endpoint: &Endpoint| {
        let port = endpoint.address().port();
        tower::service_fn(move |(): ()| std::future::ready(Ok::<_, std::convert::Infallible>(port)))
    };
    let balance = fleet.layer().layer(make);

    let callers: Vec<_> = (0..3)
        .map(|_| {
            let (mut balance, gone_since, now) = (balance.clone(), gone_since.clone(), now.clone());
            let (over, calls) = (over.clone(), calls.clone());
            thread::spawn(move || {
                while !over.load(Ordering::Acquire) {
                    let begun = now.load(Ordering::Acquire);
                    let port = assert_ready!(task::spawn(balance.call(())).poll()).unwrap();
                    let gone = gone_since[usize::from(port)].load(Ordering::Acquire);
                    assert!(
                        gone > begun,
                        "{port} was gone at {gone}, called after {begun}"
                    );
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    let mut ports: Vec<u16> = (1..=8).collect();
    for update in 1..=UPDATES {
        let old = std::mem::replace(&mut ports[(update % 8) as usize], 8 + update as u16);
        fleet.publish(ports.iter().map(|port| endpoint(*port)));
        gone_since[usize::from(old)].store(update, Ordering::Release);
        now.store(update, Ordering::Release);
        let enough = calls.load(Ordering::Relaxed) + 10;
        while calls.load(Ordering::Relaxed) < enough
            && callers.iter().all(|caller| !caller.is_finished())
        {
            thread::yield_now();
        }
    }
    over.store(true, Ordering::Release);
    callers
        .into_iter()
        .for_each(|caller| caller.join().unwrap());
    assert_eq!(fleet.in_flight(), 0);
}

#[test]
fn a_hundred_thousand_endpoints_in_one_update_are_fine() {
    let set = |from: u32| {
        (from..from + 100_000).map(|number| {
            let [_, b, c, d] = number.to_be_bytes();
            Endpoint::new(([10, b, c, d], 80).into())
        })
    };
    let fleet = Fleet::of(set(0));
    let service =
        tower::service_fn(|(): ()| std::future::ready(Ok::<_, std::convert::Infallible>(())));
    let mut balance = fleet.layer().layer(Shared::new(service));
    assert_ready!(task::spawn(balance.call(())).poll()).unwrap();
    fleet
        .endpoints
        .publish(Resolution::Found, set(50_000).collect());
    assert_ready!(task::spawn(balance.call(())).poll()).unwrap();
    fleet.endpoints.publish(Resolution::Found, vec![]);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(balance.poll_ready(&mut cx).is_ready());
    assert!(assert_ready!(task::spawn(balance.call(())).poll()).is_err());
}

/// How many of a thousand calls the endpoint at `port` gets.
fn share(fleet: &Fleet, balance: &mut impl Service<(), Response = u16>, port: u16) -> usize {
    let before = fleet.calls(port);
    for _ in 0..1_000 {
        assert!(assert_ready!(task::spawn(balance.call(())).poll()).is_ok());
    }
    fleet.calls(port) - before
}

// scenario 16
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_joins_gets_its_share_bit_by_bit_and_one_that_only_changes_keeps_it() {
    let fleet = Fleet::new(1..=10);
    let mut balance = slow_layer(&fleet).layer(fleet.connect());
    assert!(share(&fleet, &mut balance, 1) > 60, "all are new");
    let described = (1..=10).map(|port| endpoint(port).with_tag("changed"));
    fleet.publish(described.chain([endpoint(11)]));
    assert!(share(&fleet, &mut balance, 11) < 25);
    assert!(share(&fleet, &mut balance, 1) > 60);
    let second = || slow_layer(&fleet).layer(fleet.connect());
    assert!(share(&fleet, &mut second(), 11) < 25, "it is new to both");
    tokio::time::advance(Duration::from_secs(15)).await;
    assert!((30..70).contains(&share(&fleet, &mut balance, 11)));
    tokio::time::advance(Duration::from_secs(15)).await;
    assert!(share(&fleet, &mut balance, 11) > 60);
}

fn slow_layer(fleet: &Fleet) -> BalanceLayer {
    let layer = fleet.layer().strategy(Strategy::Weighted);
    layer.slow_start(SlowStart::default())
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_others_have_called_already_is_not_new() {
    let fleet = Fleet::new(1..=10);
    let mut balance = slow_layer(&fleet).layer(fleet.connect());
    share(&fleet, &mut balance, 1);
    let known = endpoint(11);
    drop(known.vitals().attempt(&fleet.clock, Sampling::Mean));
    fleet.publish((1..=10).map(endpoint).chain([known]));
    assert!(share(&fleet, &mut balance, 11) > 60);
}

#[tokio::test(start_paused = true)]
async fn where_more_join_than_were_there_nobody_is_held_back() {
    let fleet = Fleet::new([1]);
    let mut balance = slow_layer(&fleet).layer(fleet.connect());
    share(&fleet, &mut balance, 1);
    fleet.publish((1..=3).map(endpoint));
    assert!(share(&fleet, &mut balance, 2) > 250);
}

#[test]
fn other_settings_take_over_the_services_and_both_balancers_follow_the_set() {
    let fleet = Fleet::new([1, 2]);
    let old = fleet.balance();
    let layer = fleet.layer().strategy(Strategy::RoundRobin);
    let new = layer.again(&layer.again(&old));
    assert_eq!([1, 2].map(|port| fleet.seen(port).made), [1, 1]);
    fleet.publish([endpoint(2), endpoint(3)]);
    for mut balance in [old.clone(), new.clone()] {
        let mut ports: Vec<_> = (0..2)
            .map(|_| assert_ready!(task::spawn(balance.call(())).poll()).unwrap())
            .collect();
        ports.sort_unstable();
        assert_eq!(ports, [2, 3]);
    }
    drop(old);
    fleet.publish([endpoint(2), endpoint(3), endpoint(4)]);
    assert_eq!(
        fleet.seen(4).made,
        1,
        "only who is still there makes services"
    );
    assert_eq!(fleet.seen(2).made, 1);
}
