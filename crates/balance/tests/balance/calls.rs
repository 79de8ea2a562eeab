//! What happens to a call.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task};
use tower::{Layer, Service, load::TrackCompletion};
use tower_mesh_balance::{Balance, BalanceLayer, ResponseFuture, Strategy};
use tower_mesh_core::{
    Attempt, BoxError, Clock, Finish, JudgeKind, Outcome, Promises, Shut, Standing, Verdict, frame,
};

use crate::fleet::{Backend, Does, Fleet, endpoint};

fn once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn it_can_be_cloned_and_sent_and_its_calls_can_be_spawned() {
    fn is<T: Clone + Send + Sync + 'static>() {}
    fn spawns<T: Future<Output: Send> + Send + 'static>() {}
    is::<Balance<Backend>>();
    is::<BalanceLayer>();
    spawns::<
        ResponseFuture<
            Backend,
            (),
            (
                tower_mesh_core::ClassifyErrors,
                tower::load::CompleteOnResponse,
            ),
        >,
    >();
}

#[test]
fn it_is_always_ready_and_takes_nothing_before_it_is_polled() {
    let fleet = Fleet::new([1]);
    fleet.let_it(1, Does::NotReady);
    let mut balance = fleet.balance();
    let mut cx = Context::from_waker(Waker::noop());
    assert_ready_ok!(balance.poll_ready(&mut cx));
    let call = balance.call(());
    assert_eq!((fleet.in_flight(), fleet.seen(1).ready_polls), (0, 0));
    drop(call);
    assert_eq!(fleet.at(1).vitals().load().attempts(), 0);
}

#[test]
fn a_call_works_without_any_runtime() {
    let fleet = Fleet::new([1, 2, 3]);
    let mut balance = fleet.balance();
    for _ in 0..100 {
        assert!(matches!(once(balance.call(())), Poll::Ready(Ok(_))));
    }
    assert_eq!(fleet.in_flight(), 0);
}

#[test]
fn a_call_counts_as_in_flight_until_it_is_answered_or_dropped() {
    let fleet = Fleet::new([1]);
    fleet.let_it(1, Does::Hang);
    let mut balance = fleet.balance();
    let mut first = task::spawn(balance.call(()));
    let mut second = task::spawn(balance.clone().call(()));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    assert_eq!(fleet.in_flight(), 2);
    drop(first);
    drop(second);
    let load = fleet.at(1).vitals().load().in_flight();
    assert_eq!((load, fleet.at(1).vitals().load().failures()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn latency_and_success_are_recorded() {
    let fleet = Fleet::new([1]);
    fleet.let_it(1, Does::AnswerAfter(Duration::from_millis(20)));
    fleet.balance().call(()).await.unwrap();
    let endpoint = fleet.at(1);
    let load = endpoint.vitals().load();
    assert_eq!((load.latency_us(), load.success()), (Some(20_000.0), 1.0));
}

#[test]
fn a_call_reads_the_clock_twice_alone_and_among_layers_of_the_mesh() {
    let (clock, hand) = Clock::manual();
    let mut fleet = Fleet::new([1, 2, 3, 4]);
    fleet.clock = clock.clone();
    for strategy in [
        Strategy::BestOfThree,
        Strategy::PeakEwma,
        Strategy::RoundRobin,
    ] {
        let mut balance = fleet.layer().strategy(strategy).layer(fleet.connect());
        let before = hand.reads();
        assert!(once(balance.call(())).is_ready());
        assert_eq!(hand.reads() - before, 2, "{strategy:?} alone");

        let before = hand.reads();
        let mut call = pin!(balance.call(()));
        let framed =
            pin!(frame::Call::new()).poll(&clock, &mut Context::from_waker(Waker::noop()), |cx| {
                call.as_mut().poll(cx)
            });
        assert!(framed.is_ready());
        assert_eq!(hand.reads() - before, 2, "{strategy:?} in a frame");
    }
    assert_eq!(hand.timers_registered(), 0);
}

#[test]
fn an_endpoint_that_is_not_ready_is_passed_over() {
    let fleet = Fleet::new([1, 2, 3]);
    fleet.let_it(1, Does::NotReady);
    fleet.let_it(2, Does::NotReady);
    let mut balance = fleet.balance();
    for _ in 0..50 {
        let answer = assert_ready!(task::spawn(balance.call(())).poll());
        assert_eq!(answer.unwrap(), 3);
    }
    assert_eq!(fleet.in_flight(), 0);
    let polled = fleet.seen(1).ready_polls + fleet.seen(2).ready_polls;
    assert!(polled < 20, "they are avoided for a while: {polled}");
}

#[test]
fn at_most_two_others_are_asked_and_then_the_first_is_waited_for() {
    let fleet = Fleet::new(1..=10);
    (1..=10).for_each(|port| fleet.let_it(port, Does::NotReady));
    let mut balance = fleet.balance();
    let mut call = task::spawn(balance.call(()));
    assert_pending!(call.poll());
    let polled: Vec<u16> = (1..=10)
        .filter(|port| fleet.seen(*port).ready_polls > 0)
        .collect();
    assert_eq!(polled.len(), 3, "{polled:?}");
    assert_eq!(fleet.in_flight(), 1, "only one is waited for");

    let waited = polled
        .iter()
        .copied()
        .find(|port| fleet.at(*port).vitals().load().in_flight() == 1)
        .unwrap();
    fleet.let_it(waited, Does::Answer);
    assert!(call.is_woken());
    assert_eq!(assert_ready!(call.poll()).unwrap(), waited);
    assert_eq!(fleet.in_flight(), 0);
    assert_eq!(fleet.calls(waited), 1);
}

#[test]
fn a_call_that_waits_for_readiness_can_be_dropped() {
    let fleet = Fleet::new([1]);
    fleet.let_it(1, Does::NotReady);
    let says = fleet.judge(1, Standing::Limited);
    *says.places.lock().unwrap() = 1;
    let mut balance = fleet.balance();
    let mut call = task::spawn(balance.call(()));
    assert_pending!(call.poll());
    assert_eq!((fleet.in_flight(), *says.places.lock().unwrap()), (1, 0));
    drop(call);
    assert_eq!((fleet.in_flight(), *says.places.lock().unwrap()), (0, 1));
    assert!(says.reports.lock().unwrap().is_empty());
}

#[test]
fn the_only_endpoint_is_waited_for() {
    let fleet = Fleet::new([1]);
    fleet.let_it(1, Does::NotReady);
    let mut call = task::spawn(fleet.balance().call(()));
    assert_pending!(call.poll());
    assert_pending!(call.poll());
    assert!(!call.is_woken(), "it never wakes itself");
    fleet.let_it(1, Does::Answer);
    assert_eq!(assert_ready!(call.poll()).unwrap(), 1);
}

#[test]
fn a_retry_goes_where_the_call_has_not_been_while_there_is_such_an_endpoint() {
    let (clock, _) = Clock::manual();
    let mut fleet = Fleet::new(1..=4);
    fleet.clock = clock.clone();
    for strategy in [
        Strategy::BestOfThree,
        Strategy::Weighted,
        Strategy::RoundRobin,
    ] {
        let mut balance = fleet.layer().strategy(strategy).layer(fleet.connect());
        for _ in 0..50 {
            let mut ports = Vec::new();
            let _ = pin!(frame::Call::new()).poll(
                &clock,
                &mut Context::from_waker(Waker::noop()),
                |cx| {
                    for _ in 0..5 {
                        match pin!(balance.call(())).poll(cx) {
                            Poll::Ready(port) => ports.push(port.unwrap()),
                            Poll::Pending => unreachable!("all answer at once"),
                        }
                    }
                    Poll::Ready(())
                },
            );
            ports.truncate(4);
            ports.sort_unstable();
            assert_eq!(
                ports,
                [1, 2, 3, 4],
                "{strategy:?}: the fifth may go anywhere"
            );
        }
    }
}

#[test]
fn a_probe_goes_elsewhere_when_the_last_place_is_taken_meanwhile() {
    let fleet = Fleet::new([1, 2]);
    let says = fleet.judge(1, Standing::Limited);
    *says.places.lock().unwrap() = 0;
    let mut balance = fleet.balance();
    for _ in 0..50 {
        assert_eq!(
            assert_ready!(task::spawn(balance.call(())).poll()).unwrap(),
            2
        );
    }
    *says.places.lock().unwrap() = 1;
    let probed = (0..50).any(|_| assert_ready!(task::spawn(balance.call(())).poll()).unwrap() == 1);
    assert!(probed, "or else it could never recover");
    assert_eq!(says.reports.lock().unwrap()[..], [Outcome::success()]);
}

#[test]
fn a_call_whose_probe_was_refused_still_goes_where_it_suits_best() {
    let fleet = Fleet::new([1, 2]);
    let mut balance = fleet.balance();
    *fleet.judge(1, Standing::Limited).places.lock().unwrap() = 0;
    fleet.let_it(2, Does::Hang);
    let mut busy: Vec<_> = (0..5).map(|_| task::spawn(balance.call(()))).collect();
    busy.iter_mut()
        .for_each(|call| assert_pending!(call.poll()));
    assert_eq!(fleet.at(2).vitals().load().in_flight(), 5);

    fleet.publish([1, 2, 3].map(endpoint));
    for _ in 0..100 {
        let answer = assert_ready!(task::spawn(balance.call(())).poll());
        assert_eq!(answer.unwrap(), 3);
    }
}

#[test]
fn an_endpoint_whose_gate_is_shut_gets_no_call() {
    for strategy in [
        Strategy::BestOfThree,
        Strategy::PeakEwma,
        Strategy::LeastInFlight,
        Strategy::RoundRobin,
        Strategy::Weighted,
    ] {
        let fleet = Fleet::new([1, 2, 3]);
        fleet.judge(2, Standing::Shut(Shut::new(JudgeKind::Breaker, None)));
        let mut balance = fleet.layer().strategy(strategy).layer(fleet.connect());
        for _ in 0..100 {
            assert_ready!(task::spawn(balance.call(())).poll()).unwrap();
        }
        assert_eq!(fleet.calls(2), 0, "{strategy:?}");
    }
}

/// Keeps the attempt in the response, as HTTP does until the end of the body.
#[derive(Clone)]
struct Keep;

impl TrackCompletion<Attempt, u16> for Keep {
    type Output = (u16, Attempt);

    fn track_completion(&self, attempt: Attempt, port: u16) -> Self::Output {
        (port, attempt)
    }
}

impl Promises<Verdict> for Keep {}

#[test]
fn a_verdict_may_wait_for_the_end_of_the_response() {
    let fleet = Fleet::new([1]);
    let says = fleet.judge(1, Standing::Open);
    let mut balance = fleet
        .layer()
        .classify(
            |result: Result<&u16, &(dyn std::error::Error + Send + Sync + 'static)>| match result {
                Ok(_) => Verdict::Deferred,
                Err(_) => Verdict::Done(Outcome::failure()),
            },
        )
        .completion(Keep)
        .layer(fleet.connect());
    let (_, mut attempt) = assert_ready!(task::spawn(balance.call(())).poll()).unwrap();
    assert_eq!(fleet.in_flight(), 1, "it still streams");
    assert!(says.reports.lock().unwrap().is_empty());
    attempt.finish(Outcome::overload());
    drop(attempt);
    assert_eq!(fleet.in_flight(), 0);
    assert_eq!(says.reports.lock().unwrap()[..], [Outcome::overload()]);

    let (_, dropped) = assert_ready!(task::spawn(balance.call(())).poll()).unwrap();
    drop(dropped);
    let load = fleet.at(1);
    let load = load.vitals().load();
    assert_eq!((load.in_flight(), load.failures()), (0, 1));
    assert_eq!(
        load.unanswered(fleet.clock.now()),
        0.0,
        "its head was an answer"
    );
}

#[test]
fn each_layer_made_knows_what_the_others_have_seen() {
    let fleet = Fleet::new([1]);
    fleet.let_it(1, Does::Hang);
    let layer = fleet.layer();
    let mut one = layer.layer(fleet.connect());
    let mut other = layer.clone().layer(fleet.connect());
    let mut calls = [task::spawn(one.call(())), task::spawn(other.call(()))];
    calls
        .iter_mut()
        .for_each(|call| assert_pending!(call.poll()));
    assert_eq!(fleet.at(1).vitals().load().in_flight(), 2);
}

#[test]
fn taking_turns_goes_on_across_the_services_of_one_layer() {
    let fleet = Fleet::new(1..=4);
    let layer = fleet.layer().strategy(Strategy::RoundRobin);
    for _ in 0..25 {
        for _ in 0..4 {
            let mut balance = layer.layer(fleet.connect());
            assert_ready!(task::spawn(balance.call(())).poll()).unwrap();
        }
    }
    assert_eq!([1, 2, 3, 4].map(|port| fleet.calls(port)), [25; 4]);
}

#[test]
fn a_foreign_error_type_is_fine() {
    #[derive(Clone)]
    struct Strings;

    impl Service<()> for Strings {
        type Response = ();
        type Error = String;
        type Future = std::future::Ready<Result<(), String>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), String>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            std::future::ready(Err("no".into()))
        }
    }

    let fleet = Fleet::new([1]);
    let mut balance = fleet.layer().layer(tower_mesh_core::Shared::new(Strings));
    let error: BoxError = assert_ready!(task::spawn(balance.call(())).poll()).unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "no");
}
