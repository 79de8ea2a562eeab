//! Flaws of tower's balancer, and this one under the same conditions. Each test shows the flaw first.

use std::{
    collections::VecDeque,
    convert::Infallible,
    hash::{BuildHasherDefault, DefaultHasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::{future::join_all, stream};
use tokio_test::{assert_ready, assert_ready_ok, task};
use tower::{
    BoxError, Service, ServiceExt,
    balance::p2c,
    buffer::Buffer,
    discover::{Change, Discover, ServiceList},
    load::{CompleteOnResponse, Constant, PeakEwma},
    steer::Steer,
    util::rng::HasherRng,
};
use tower_mesh_core::{Kind, Refusal, Rng};

use crate::fleet::{Backend, Does, Fleet, endpoint};

pub(crate) type Measured = PeakEwma<Backend>;

/// tower's balancer over the fleet, by peak EWMA as linkerd and Finagle set it.
pub(crate) fn towers(
    fleet: &Fleet,
) -> p2c::Balance<impl Discover<Key = usize, Service = Measured, Error = Infallible> + use<>, ()> {
    let connect = fleet.connect();
    let set = fleet.endpoints.current();
    let measured = |endpoint| {
        let rtt = Duration::from_millis(30);
        PeakEwma::new(connect(endpoint), rtt, 10e9, CompleteOnResponse::default())
    };
    let services: Vec<_> = set.endpoints().iter().map(measured).collect();
    // The same chance in each run.
    let rng = HasherRng::with_hasher(BuildHasherDefault::<DefaultHasher>::default());
    p2c::Balance::from_rng(ServiceList::new::<()>(services), rng)
}

/// So many callers, each with so many calls one after the other.
async fn call<S>(service: S, callers: usize, calls: usize)
where
    S: Service<(), Error = BoxError> + Clone,
{
    let caller = async |mut service: S| {
        for _ in 0..calls {
            let _ = service.ready().await.unwrap().call(()).await;
        }
    };
    join_all((0..callers).map(|_| caller(service.clone()))).await;
}

/// Whether a balancer can be made, cloned and called where there is no runtime.
fn a_clone_answers_without_a_runtime<S: Service<()> + Clone>(make: impl FnOnce() -> S) -> bool {
    let answers = || task::spawn(make().clone().oneshot(())).poll().is_ready();
    catch_unwind(AssertUnwindSafe(answers)).unwrap_or(false)
}

#[test]
fn w1_a_balancer_that_needs_a_worker_needs_a_runtime_and_this_one_does_not() {
    let fleet = Fleet::new([1, 2]);
    assert!(a_clone_answers_without_a_runtime(|| fleet.balance()));

    // It is no `Clone` without its buffer, which spawns a worker.
    let tower = || Buffer::new(towers(&fleet), 10);
    assert!(!a_clone_answers_without_a_runtime(tower));
}

#[tokio::test(start_paused = true)]
async fn w2_an_endpoint_that_fails_fast_draws_no_traffic() {
    let share = async |ours: bool| {
        let fleet = Fleet::new(1..=10);
        (2..=10).for_each(|port| fleet.let_it(port, Does::AnswerAfter(Duration::from_millis(20))));
        fleet.let_it(1, Does::Fail);
        match ours {
            true => call(fleet.balance(), 4, 1_000).await,
            false => call(Buffer::new(towers(&fleet), 100), 4, 1_000).await,
        }
        fleet.calls(1) as f64 / 4_000.0
    };
    let (tower, ours) = (share(false).await, share(true).await);
    assert!(
        tower > 0.15,
        "half as much again as its fair share: {tower}"
    );
    assert!(ours < 0.02, "a fifth of its fair share: {ours}");
}

#[tokio::test(start_paused = true)]
async fn w3_an_endpoint_that_hangs_draws_no_calls_of_callers_who_give_up() {
    let share = async |ours: bool, known: bool| {
        let fleet = Fleet::new([1, 2]);
        let soon = Does::AnswerAfter(Duration::from_millis(20));
        fleet.let_it(1, soon);
        fleet.let_it(2, soon);
        let mut balance = fleet.balance();
        let mut tower = Buffer::new(towers(&fleet), 10);
        let rng = Rng::seeded(3);
        let mut begin = 0;
        for nth in 0..if known { 420 } else { 400 } {
            if nth == if known { 20 } else { 0 } {
                begin = fleet.calls(1);
                fleet.let_it(1, Does::Hang);
            }
            let patience = Duration::from_millis([5, 25][rng.below(2)]);
            let _ = match ours {
                true => tokio::time::timeout(patience, balance.call(())).await,
                false => {
                    let ready = tower.ready().await.unwrap();
                    tokio::time::timeout(patience, ready.call(())).await
                }
            };
        }
        (fleet.calls(1) - begin) as f64 / 400.0
    };
    let tower = share(false, true).await;
    assert!(tower > 0.2, "{tower}");
    for known in [true, false] {
        let ours = share(true, known).await;

        assert!(ours < 0.1, "known {known}: {ours}");
    }
}

#[tokio::test(start_paused = true)]
async fn w4_an_endpoint_whose_readiness_fails_once_comes_back() {
    let share = async |ours: bool| {
        let fleet = Fleet::new([1, 2]);
        let soon = Does::AnswerAfter(Duration::from_millis(20));
        fleet.let_it(1, Does::FailReady);
        fleet.let_it(2, soon);
        let tower = Buffer::new(towers(&fleet), 10);
        let balance = fleet.balance();
        for does in [Does::FailReady, soon] {
            fleet.let_it(1, does);
            match ours {
                true => call(balance.clone(), 2, 500).await,
                false => call(tower.clone(), 2, 500).await,
            }
        }
        fleet.calls(1)
    };
    assert_eq!(share(false).await, 0);
    let ours = share(true).await;
    assert!(ours > 100, "{ours} of 1,000");
}

#[test]
fn w6_without_endpoints_a_call_fails_at_once() {
    let fleet = Fleet::new([]);
    let mut tower = towers(&fleet);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Service::<()>::poll_ready(&mut tower, &mut cx).is_pending());

    let error = assert_ready!(task::spawn(fleet.balance().call(())).poll()).unwrap_err();
    assert_eq!(
        Refusal::of(&*error).map(Refusal::kind),
        Some(Kind::NoEndpoint)
    );
}

#[tokio::test]
async fn w7_a_panic_in_one_call_is_that_calls_alone() {
    let fleet = Fleet::new([1]);
    fleet.let_it(1, Does::PanicInCall);
    let mut tower = Buffer::new(towers(&fleet), 10);
    let mut balance = fleet.balance();
    assert!(tower.ready().await.unwrap().call(()).await.is_err());
    let mut panicking = task::spawn(balance.call(()));
    assert!(catch_unwind(AssertUnwindSafe(|| panicking.poll())).is_err());

    fleet.let_it(1, Does::Answer);
    assert!(tower.ready().await.is_err(), "its worker is dead");
    assert_eq!(balance.call(()).await.unwrap(), 1);
}

#[test]
fn w8_a_removal_between_readiness_and_call_does_not_lead_to_an_arbitrary_endpoint() {
    let changes: Arc<Mutex<VecDeque<_>>> = Arc::default();
    let fleet = Fleet::new([1, 2]);
    let connect = fleet.connect();
    let change = |change| changes.lock().unwrap().push_back(change);
    let insert = |port, load| Change::Insert(port, Constant::new(connect(&endpoint(port)), load));
    let queue = changes.clone();
    let mut tower = p2c::Balance::new(stream::poll_fn(move |_| {
        match queue.lock().unwrap().pop_front() {
            Some(change) => Poll::Ready(Some(Ok::<_, Infallible>(change))),
            None => Poll::Pending,
        }
    }));
    let mut cx = Context::from_waker(Waker::noop());
    // The idle one is chosen, then removed; another idle one has come meanwhile.
    change(insert(1, 0));
    change(insert(2, 10));
    assert_ready_ok!(Service::<()>::poll_ready(&mut tower, &mut cx));
    change(Change::Remove(1));
    change(insert(3, 0));
    assert_ready_ok!(Service::<()>::poll_ready(&mut tower, &mut cx));
    let port = assert_ready!(task::spawn(tower.call(())).poll()).unwrap();
    assert_eq!(port, 2, "the busy one");

    let (mut balance, mut other) = (fleet.balance(), fleet.balance());
    fleet.let_it(2, Does::Hang);
    assert_ready_ok!(balance.poll_ready(&mut cx));
    let held: Vec<_> = (0..20)
        .map(|_| {
            let mut call = task::spawn(other.call(()));
            let _ = call.poll();
            call
        })
        .collect();
    let mut call = task::spawn(balance.call(()));
    fleet.publish([endpoint(2), endpoint(3)]);
    assert_eq!(assert_ready!(call.poll()).unwrap(), 3, "the idle one");
    drop(held);
}

#[test]
fn w12_a_call_polls_one_endpoint_not_all() {
    let polled =
        |fleet: &Fleet| -> usize { (1..=1_000).map(|port| fleet.seen(port).ready_polls).sum() };
    let fleet = Fleet::new(1..=1_000);
    let mut tower = towers(&fleet);
    let mut cx = Context::from_waker(Waker::noop());
    assert_ready_ok!(Service::<()>::poll_ready(&mut tower, &mut cx));
    assert!(polled(&fleet) >= 1_000);

    let fleet = Fleet::new(1..=1_000);
    assert_ready!(task::spawn(fleet.balance().call(())).poll()).unwrap();
    assert_eq!(polled(&fleet), 1);
}

/// How many of fifty calls are answered at once while one endpoint of three is not ready, which nobody asks for.
fn answered_while_another_is_not_ready<S: Service<()>>(mut service: S) -> usize {
    let mut answered = 0;
    for _ in 0..50 {
        let mut call = task::spawn(async { service.ready().await.ok()?.call(()).await.ok() });
        answered += usize::from(matches!(call.poll(), Poll::Ready(Some(_))));
    }
    answered
}

#[test]
fn t25_an_endpoint_that_is_not_ready_holds_up_no_call() {
    let fleet = Fleet::new([1, 2, 3]);
    fleet.let_it(1, Does::NotReady);
    assert_eq!(answered_while_another_is_not_ready(fleet.balance()), 50);

    // tower-resilience's router does as tower's own: it is ready when all are.
    let services = fleet.endpoints.current();
    let services = services.endpoints().iter().map(fleet.connect());
    let router = Steer::new(services, |(): &(), _: &[Backend]| 1);
    assert_eq!(answered_while_another_is_not_ready(router), 0);
    assert_eq!(fleet.calls(1), 0);
}
