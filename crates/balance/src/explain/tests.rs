use std::sync::Arc;

use tower_mesh_core::{
    Clock, Endpoints, Finish, Judge, ManualClock, Outcome, Sampling, Ticket, Weight,
};

use super::*;
use crate::BalanceLayer;

/// Says the same to everybody.
#[derive(Debug)]
struct Says(Standing);

impl Judge for Says {
    fn standing(&self, _: Instant) -> Standing {
        self.0
    }

    fn admit(&self, _: Instant) -> Result<Ticket, Shut> {
        Ok(Ticket::new(0, true))
    }

    fn report(&self, _: Ticket, _: Outcome, _: Duration, _: Instant) {}

    fn release(&self, _: Ticket) {}
}

fn fleet(endpoints: Vec<Endpoint>) -> (BalanceLayer, Clock, ManualClock) {
    let (clock, hand) = Clock::manual();
    let orders = ServiceName::new("orders").expect("a name");
    let layer = BalanceLayer::new(Endpoints::fixed(orders, endpoints)).clock(clock.clone());
    (layer, clock, hand)
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint::new(([10, 0, 0, 1], port).into())
}

fn judge(endpoint: &Endpoint, kind: JudgeKind, standing: Standing) {
    endpoint.vitals().attach(kind, |handle| {
        handle.set(true);
        Arc::new(Says(standing))
    });
}

#[test]
fn it_says_who_is_the_cheapest_and_what_makes_it_so() {
    let (busy, fast, heavy) = (
        endpoint(1),
        endpoint(2),
        endpoint(3).with_weight(Weight::new(0)),
    );
    let (layer, clock, hand) = fleet(vec![busy.clone(), fast.clone(), heavy]);
    let begin = |of: &Endpoint| of.vitals().attempt(&clock, Sampling::Mean).expect("open");
    let mut answered = [begin(&busy), begin(&fast)];
    hand.advance(Duration::from_millis(5));
    answered
        .iter_mut()
        .for_each(|attempt| attempt.finish(Outcome::success()));
    drop(answered);
    let _held = begin(&busy);
    let now = layer.explain();
    let costs: Vec<_> = now.endpoints.iter().map(|of| (of.cost, of.rank)).collect();
    let expected = [
        (Some(10_000.0), Some(2)),
        (Some(5_000.0), Some(1)),
        (None, None),
    ];
    assert_eq!(costs, expected);
    assert_eq!(
        now.to_string(),
        "orders: 3 endpoints by BestOfThree\n\
         priority 0: 2 endpoints, 100 % of the calls\n  \
         10.0.0.1:2: takes calls, number 1, cost 5000 (5.0 ms, 0 in flight, 100 % succeed)\n  \
         10.0.0.1:1: takes calls, number 2, cost 10000 (5.0 ms, 1 in flight, 100 % succeed)\n\
         10.0.0.1:3: out, its weight is 0 (no answer yet, 0 in flight, 100 % succeed), weight 0\n"
    );
}

#[test]
fn it_says_who_is_out_and_for_how_long() {
    let all: Vec<_> = (1..=7).map(endpoint).collect();
    let (layer, clock, _hand) = fleet(all.clone());
    let until = clock.now() + Duration::from_secs(7);
    let shut = |by, until| Standing::Shut(Shut::new(by, until));
    judge(
        &all[0],
        JudgeKind::Breaker,
        shut(JudgeKind::Breaker, Some(until)),
    );
    judge(&all[1], JudgeKind::Outlier, shut(JudgeKind::Outlier, None));
    judge(&all[2], JudgeKind::Breaker, Standing::Limited);
    all[3].vitals().gate().set_draining(true);
    all[4].vitals().gate().begin_slowly(clock.now());
    let now = layer.explain();
    let takes: Vec<_> = now.endpoints.iter().map(|of| of.takes).collect();
    let expected = [
        Takes::Shut(JudgeKind::Breaker, Some(Duration::from_secs(7))),
        Takes::Shut(JudgeKind::Outlier, None),
        Takes::Probes,
        Takes::Shut(JudgeKind::Drain, None),
        Takes::Calls,
        Takes::Calls,
        Takes::Calls,
    ];
    assert_eq!(takes, expected);
    assert_eq!(now.endpoints[4].slow_start, 0.1);
    let ranked = now.endpoints.iter().filter(|of| of.rank.is_some());
    assert_eq!(ranked.count(), 3, "only who takes calls is compared");
    let words = now.to_string();
    for said in [
        "10.0.0.1:1: out, its breaker is open for another 7.0s",
        "10.0.0.1:2: out, it is ejected as an outlier",
        "10.0.0.1:3: takes probes",
        "10.0.0.1:4: out, it drains",
        "begins with 10 % of its weight",
    ] {
        assert!(words.contains(said), "{said} is not in {words}");
    }
}

#[test]
fn it_says_that_there_is_a_panic() {
    let all: Vec<_> = (1..=3).map(endpoint).collect();
    let (layer, ..) = fleet(all.clone());
    let shut = Standing::Shut(Shut::new(JudgeKind::Health, None));
    all[..2]
        .iter()
        .for_each(|of| judge(of, JudgeKind::Health, shut));
    let now = layer.explain();
    assert!(now.levels[0].is_panicking);
    assert_eq!(
        now.endpoints[0].takes,
        Takes::CallsInPanic(JudgeKind::Health)
    );
    let said = "takes calls in a panic, although it fails health checks";
    assert!(now.to_string().contains(said), "{now}");
}

#[test]
fn it_says_which_level_takes_how_much() {
    let near = (1..=4).map(|port| endpoint(port).with_zone("eu/a"));
    let far = (5..=8).map(|port| endpoint(port).with_zone("us/a"));
    let second = (9..=12).map(|port| endpoint(port).with_priority(1));
    let all: Vec<_> = near.chain(far).chain(second).collect();
    let (layer, ..) = fleet(all.clone());
    let shut = Standing::Shut(Shut::new(JudgeKind::Health, None));
    all[..2]
        .iter()
        .for_each(|of| judge(of, JudgeKind::Health, shut));
    let now = layer.zone("eu/a").explain();
    let levels: Vec<_> = now.levels.iter().map(ToString::to_string).collect();
    assert_eq!(
        levels,
        [
            "priority 0: 4 endpoints, 70 % of the calls",
            "priority 0, distance 2: 4 endpoints, 30 % of the calls",
            "priority 1, distance 2: 4 endpoints, 0 % of the calls",
        ]
    );
    assert_eq!(now.endpoints[0].takes, Takes::Shut(JudgeKind::Health, None));
    assert_eq!(now.endpoints[11].level, Some(2));
}

#[test]
fn without_endpoints_there_is_little_to_say() {
    let (layer, ..) = fleet(Vec::new());
    assert_eq!(
        layer.explain().to_string(),
        "orders: 0 endpoints by BestOfThree\n"
    );
}
