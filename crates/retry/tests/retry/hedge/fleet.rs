//! Where hedges go, over the mesh's balancer.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use tower::{BoxError, Layer, Service};
use tower_mesh_balance::BalanceLayer;
use tower_mesh_core::{
    Clock, Endpoint, Endpoints, Instant, Judge, JudgeKind, Outcome, Rng, ServiceName, Shut, Sleep,
    Standing, Ticket,
};
use tower_mesh_retry::{Backoff, HedgeAfter, HedgeLayer, Jitter, RetryLayer};

use super::{Stage, attempts};
use crate::script::ms;

/// After what time endpoints answer, by port; those that are not there hang. And to whom calls were sent.
#[derive(Clone)]
struct Fleet {
    endpoints: Endpoints,
    clock: Clock,
    answers: Arc<Mutex<HashMap<u16, Duration>>>,
    sent: Arc<Mutex<Vec<u16>>>,
}

/// The service of one endpoint.
#[derive(Clone)]
struct Backend(u16, Fleet);

struct Reply(u16, Option<Sleep>);

impl Service<&'static str> for Backend {
    type Response = u16;
    type Error = BoxError;
    type Future = Reply;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: &'static str) -> Reply {
        let Self(port, fleet) = self;
        fleet.sent.lock().unwrap().push(*port);
        let after = fleet.answers.lock().unwrap().get(port).copied();
        Reply(*port, after.map(|after| fleet.clock.sleep(after)))
    }
}

impl Future for Reply {
    type Output = Result<u16, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.1 {
            Some(sleep) => Pin::new(sleep).poll(cx).map(|()| Ok(self.0)),
            None => Poll::Pending,
        }
    }
}

impl Fleet {
    fn new(stage: &Stage, ports: u16, answers: impl IntoIterator<Item = (u16, u64)>) -> Self {
        let endpoint = |port| Endpoint::new(([10, 0, 0, 1], port).into());
        let name = ServiceName::new("orders").unwrap();
        let answers = answers.into_iter().map(|(port, after)| (port, ms(after)));
        Self {
            endpoints: Endpoints::fixed(name, (1..=ports).map(endpoint)),
            clock: stage.clock.clone(),
            answers: Arc::new(Mutex::new(answers.collect())),
            sent: Arc::default(),
        }
    }

    fn balance(&self, seed: u64) -> tower_mesh_balance::Balance<Backend> {
        let fleet = self.clone();
        BalanceLayer::new(self.endpoints.clone())
            .clock(self.clock.clone())
            .rng(Rng::seeded(seed))
            .layer(move |endpoint: &Endpoint| Backend(endpoint.address().port(), fleet.clone()))
    }

    fn hedge(&self, stage: &Stage) -> HedgeLayer {
        HedgeLayer::new(stage.budget.clone())
            .after(HedgeAfter::Fixed(ms(50)))
            .elsewhere(self.endpoints.clone())
            .clock(stage.clock.clone())
    }

    fn sent(&self) -> Vec<u16> {
        std::mem::take(&mut self.sent.lock().unwrap())
    }

    /// Attempts in flight, failures, and calls left unanswered, of each.
    fn loads(&self) -> Vec<(u32, u64, f32)> {
        let set = self.endpoints.current();
        let loads = set.endpoints().iter().map(|endpoint| {
            let load = endpoint.vitals().load();
            let unanswered = load.unanswered(self.clock.now());
            (load.in_flight(), load.failures(), unanswered)
        });
        loads.collect()
    }

    fn shut(&self, port: u16, standing: fn() -> Standing) {
        let set = self.endpoints.current();
        let vitals = set.endpoints()[usize::from(port) - 1].vitals();
        vitals.attach(JudgeKind::Breaker, |gate| {
            gate.set(true);
            Arc::new(Says(standing))
        });
    }
}

/// A judge that never changes its mind, and would admit a probe.
#[derive(Debug)]
struct Says(fn() -> Standing);

impl Judge for Says {
    fn standing(&self, _: Instant) -> Standing {
        self.0()
    }

    fn admit(&self, _: Instant) -> Result<Ticket, Shut> {
        match self.0() {
            Standing::Shut(shut) => Err(shut),
            _ => Ok(Ticket::new(1, true)),
        }
    }

    fn report(&self, _: Ticket, _: Outcome, _: Duration, _: Instant) {}

    fn release(&self, _: Ticket) {}
}

#[test]
fn a_hedge_goes_to_another_endpoint_and_the_loser_is_load_no_more_and_no_failure() {
    for seed in 0..50 {
        let stage = Stage::new();
        // One hangs, whichever is tried first; the other is quick.
        let fleet = Fleet::new(&stage, 2, [(2, 10)]);
        let mut hedge = fleet.hedge(&stage).over(fleet.balance(seed));
        let (at, answer) = stage.call(&mut hedge, ms(1_000)).unwrap();
        assert_eq!(answer.unwrap(), 2);
        if fleet.sent() == [2] {
            continue;
        }
        assert_eq!(at, ms(60));
        let loads = fleet.loads();
        assert_eq!((loads[0].0, loads[0].1), (0, 0), "{loads:?}");
        assert_eq!(loads[1], (0, 0, 0.0));
        // Who has left a call unanswered does not look idle: the next calls go elsewhere.
        assert!(loads[0].2 > 0.9, "{loads:?}");
        for _ in 0..20 {
            assert_eq!(stage.call(&mut hedge, ms(1_000)).unwrap().1.unwrap(), 2);
        }
        assert_eq!(fleet.sent(), [2; 20]);
        return;
    }
    panic!("some call goes to the one that hangs");
}

#[test]
fn attempts_that_end_in_the_same_moment_are_one_answer_and_the_other_is_neither_load_nor_failure() {
    let mut first = std::collections::HashSet::new();
    for seed in 0..20 {
        let stage = Stage::new();
        let fleet = Fleet::new(&stage, 2, [(1, 60), (2, 60)]);
        let mut hedge = fleet.hedge(&stage).over(fleet.balance(seed));
        let mut call = tokio_test::task::spawn(Box::pin(hedge.call("a")));
        assert!(stage.run(&mut call, ms(20)).is_none());
        let sent = fleet.sent();
        first.insert(sent[0]);
        let other = 3 - sent[0];
        fleet.answers.lock().unwrap().insert(other, ms(10));
        let (at, answer) = stage.run(&mut call, ms(1_000)).unwrap();
        assert_eq!((at, fleet.sent()), (ms(40), vec![other]));
        assert!([sent[0], other].contains(&answer.unwrap()));
        let loads = fleet.loads();
        assert!(
            loads.iter().all(|load| (load.0, load.1) == (0, 0)),
            "{loads:?}"
        );
        assert_eq!(stage.spent(), 1);
    }
    assert_eq!(first.len(), 2, "each is the first in some");
}

/// What became of calls whose first attempt fails at once, by whom they are made: when each had failed, and to whom it was sent.
type Failed = (Duration, Vec<u16>);

/// Whether a failure is answered at once, with an attempt elsewhere at once, and never by more attempts than the budget has.
fn is_no_hidden_retry(failed: &[Failed], budget: usize) -> bool {
    let extra: usize = failed.iter().map(|(_, sent)| sent.len() - 1).sum();
    let elsewhere = |sent: &[u16]| sent.windows(2).all(|pair| pair[0] != pair[1]);
    extra <= budget
        && failed
            .iter()
            .all(|(at, sent)| at.is_zero() && elsewhere(sent))
}

// flaw T21
#[test]
fn a_failure_waits_for_no_delay_goes_elsewhere_and_is_bounded_by_the_budget() {
    let stage = Stage::new();
    let fleet = Fleet::new(&stage, 2, []);
    let sent = Arc::clone(&fleet.sent);
    let balance = BalanceLayer::new(fleet.endpoints.clone())
        .clock(stage.clock.clone())
        .rng(Rng::seeded(1))
        .layer(move |endpoint: &Endpoint| {
            let (sent, port) = (Arc::clone(&sent), endpoint.address().port());
            tower::service_fn(move |_: &'static str| {
                sent.lock().unwrap().push(port);
                std::future::ready(Err::<u16, BoxError>("refused".into()))
            })
        });
    let few = tower_mesh_retry::Budget::new(tower_mesh_core::Ratio::ZERO).min_per_second(0);
    for (budget, most) in [(stage.budget.clone(), 1), (few, 0)] {
        let mut hedge = HedgeLayer::new(budget)
            .after(HedgeAfter::Fixed(ms(100)))
            .elsewhere(fleet.endpoints.clone())
            .clock(stage.clock.clone())
            .over(balance.clone());
        let (at, answer) = stage.call(&mut hedge, ms(1_000)).unwrap();
        assert!(answer.is_err());
        let failed = [(at, fleet.sent())];
        assert!(is_no_hidden_retry(&failed, most), "{failed:?}");
    }
}

/// tower-resilience's hedge: the second attempt is made when the delay is over and the first has not succeeded, with the same
/// service, whatever a budget would say; only then the first's error counts.
fn hedge_of_tower_resilience(
    delay: Duration,
    mut attempt: impl FnMut() -> Result<u16, ()>,
) -> Duration {
    if attempt().is_ok() {
        return Duration::ZERO;
    }
    let _ = attempt();
    delay
}

// flaw T21
#[test]
fn as_tower_resilience_hedges_it_is_one() {
    let mut sent = Vec::new();
    let at = hedge_of_tower_resilience(ms(100), || {
        sent.push(1);
        Err(())
    });
    assert!(!is_no_hidden_retry(&[(at, sent.clone())], 1));
    assert!(
        !is_no_hidden_retry(&[(Duration::ZERO, sent.clone())], 1),
        "the same again"
    );
    sent[1] = 2;
    assert!(
        !is_no_hidden_retry(&[(Duration::ZERO, sent)], 0),
        "beyond the budget"
    );
}

#[test]
fn of_many_attempts_each_goes_somewhere_else() {
    let stage = Stage::new();
    let fleet = Fleet::new(&stage, 6, []);
    let layer = fleet.hedge(&stage).attempts(attempts(6));
    let mut hedge = layer.over(fleet.balance(1));
    assert!(stage.call(&mut hedge, ms(1_000)).is_none());
    let mut sent = fleet.sent();
    sent.sort_unstable();
    assert_eq!(sent, [1, 2, 3, 4, 5, 6]);
    assert!(fleet.loads().iter().all(|load| (load.0, load.1) == (0, 0)));
}

#[test]
fn with_one_endpoint_nothing_is_hedged() {
    let stage = Stage::new();
    let fleet = Fleet::new(&stage, 1, [(1, 500)]);
    let mut hedge = fleet.hedge(&stage).over(fleet.balance(1));
    assert!(stage.call(&mut hedge, ms(1_000)).unwrap().1.is_ok());
    assert_eq!((fleet.sent(), stage.spent()), (vec![1], 0));
}

#[test]
fn a_hedge_is_no_probe() {
    let out: fn() -> Standing = || Standing::Shut(Shut::new(JudgeKind::Breaker, None));
    for others in [(|| Standing::Limited) as fn() -> Standing, out] {
        let stage = Stage::new();
        let fleet = Fleet::new(&stage, 3, []);
        let mut hedge = fleet.hedge(&stage).over(fleet.balance(1));
        let mut call = tokio_test::task::spawn(Box::pin(hedge.call("a")));
        assert!(stage.run(&mut call, ms(20)).is_none());
        let first = fleet.sent();
        // From now on nobody but the first would take it other than as a probe.
        (1..=3)
            .filter(|port| !first.contains(port))
            .for_each(|port| fleet.shut(port, others));
        assert!(stage.run(&mut call, ms(1_000)).is_none());
        assert_eq!((fleet.sent(), stage.spent()), (vec![], 0));
    }
}

#[test]
fn beneath_a_retry_attempts_add_up_and_do_not_multiply() {
    let stage = Stage::new();
    let fleet = Fleet::new(&stage, 8, []);
    let hedge = fleet.hedge(&stage).beneath_retry().joined();
    let mut retry = RetryLayer::new(stage.budget.clone())
        .attempts(attempts(3))
        .per_try_timeout(ms(200))
        .backoff(Backoff::exponential(ms(10), ms(10)).jitter(Jitter::None))
        .clock(stage.clock.clone())
        .over(hedge.over(fleet.balance(1)));
    assert!(stage.call(&mut retry, ms(1_500)).unwrap().1.is_err());
    let sent = fleet.sent();
    assert_eq!(
        sent.len(),
        4,
        "three attempts, the first of which was hedged"
    );
    // Each endpoint once, and the time of each was up.
    let loads = fleet.loads();
    let failed = loads.iter().map(|load| load.1).sum::<u64>();
    assert_eq!((failed, loads.iter().all(|load| load.1 <= 1)), (4, true));
    assert!(loads.iter().all(|load| load.0 == 0));
    assert_eq!(hedge.snapshot().sent, 1);
}
