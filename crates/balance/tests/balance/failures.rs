//! Errors, panics, and nobody to call.

use std::{
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service};
use tower_mesh_balance::{NoEndpoint, Reason};
use tower_mesh_core::{
    AtEndpoint, BoxError, Class, Clock, Endpoint, Endpoints, JudgeKind, Kind, Outcome, Refusal,
    Resolution, Sent, Shut, Standing, Weight, frame,
};

use crate::fleet::{Backend, Does, Failed, Fleet, endpoint, name};

fn fail(balance: &mut (impl Service<(), Error = BoxError> + ?Sized)) -> BoxError {
    match assert_ready!(task::spawn(balance.call(())).poll()) {
        Ok(_) => panic!("it should have failed"),
        Err(error) => error,
    }
}

#[test]
fn an_error_names_its_endpoint_and_loses_nothing() {
    let fleet = Fleet::new([7]);
    fleet.let_it(7, Does::Fail);
    let says = fleet.judge(7, Standing::Open);
    let error = fail(&mut fleet.balance());
    let at = AtEndpoint::of(&*error).unwrap();
    assert_eq!(at.endpoint(), &endpoint(7));
    assert!(at.source().unwrap().is::<Failed>());
    assert_eq!(says.reports.lock().unwrap()[..], [Outcome::failure()]);
    assert_eq!(
        (fleet.in_flight(), fleet.at(7).vitals().load().failures()),
        (0, 1)
    );
}

#[test]
fn of_a_burst_at_the_start_one_call_goes_to_the_endpoint_that_fails_at_once() {
    let fleet = Fleet::new([1, 2, 3]);
    fleet.let_it(1, Does::Fail);
    fleet.let_it(2, Does::Hang);
    fleet.let_it(3, Does::Hang);
    let mut balance = fleet.balance();
    let mut calls: Vec<_> = (0..100).map(|_| task::spawn(balance.call(()))).collect();
    calls.iter_mut().for_each(|call| drop(call.poll()));
    assert_eq!(fleet.calls(1), 1);
    assert!(fleet.calls(2).abs_diff(fleet.calls(3)) <= 1);
}

#[test]
fn an_error_of_an_endpoint_that_was_removed_meanwhile_still_names_it() {
    let fleet = Fleet::new([7]);
    fleet.let_it(7, Does::NotReady);
    let mut call = task::spawn(fleet.balance().call(()));
    assert_pending!(call.poll());
    fleet.publish([endpoint(8)]);
    fleet.let_it(7, Does::FailReady);
    let error = match assert_ready!(call.poll()) {
        // It could still go elsewhere.
        Ok(port) => return assert_eq!(port, 8),
        Err(error) => error,
    };
    panic!("{error}");
}

#[test]
fn a_failure_of_readiness_counts_against_the_endpoint_and_the_call_goes_elsewhere() {
    let fleet = Fleet::new([1, 2]);
    fleet.let_it(1, Does::FailReady);
    let mut balance = fleet.balance();
    for _ in 0..50 {
        assert_eq!(
            assert_ready!(task::spawn(balance.call(())).poll()).unwrap(),
            2
        );
    }
    let failures = fleet.at(1).vitals().load().failures();
    assert!((1..10).contains(&failures), "{failures}");
    assert_eq!(fleet.in_flight(), 0);
}

#[test]
fn if_no_endpoint_becomes_ready_the_request_was_surely_not_sent() {
    let fleet = Fleet::new([1]);
    fleet.let_it(1, Does::FailReady);
    let error = fail(&mut fleet.balance());
    let refusal = Refusal::of(&*error).unwrap();
    assert_eq!(
        (refusal.kind(), refusal.sent()),
        (Kind::Connect, Sent::Never)
    );
    assert_eq!(refusal.outcome().class(), Class::Failure);
    assert!(refusal.source().unwrap().is::<Failed>());
    assert_eq!(AtEndpoint::of(&*error).unwrap().endpoint(), &endpoint(1));
    assert_eq!(fleet.calls(1), 0);
}

#[test]
fn a_wait_that_ends_in_failure_goes_on_elsewhere() {
    let fleet = Fleet::new([1, 2, 3, 4]);
    (1..=4).for_each(|port| fleet.let_it(port, Does::NotReady));
    let mut balance = fleet.balance();
    let mut call = task::spawn(balance.call(()));
    assert_pending!(call.poll());
    (1..=4).for_each(|port| fleet.let_it(port, Does::FailReady));
    let error = assert_ready!(call.poll()).unwrap_err();
    let refusal = Refusal::of(&*error).unwrap();
    assert_eq!(
        (refusal.kind(), refusal.sent()),
        (Kind::Connect, Sent::Never)
    );
    assert_eq!(fleet.in_flight(), 0);
}

#[test]
fn a_panic_anywhere_in_a_call_is_a_failure_and_loses_nothing() {
    for does in [Does::PanicInReady, Does::PanicInCall, Does::PanicInPoll] {
        let fleet = Fleet::new([1]);
        let says = fleet.judge(1, Standing::Limited);
        *says.places.lock().unwrap() = 1;
        fleet.let_it(1, does);
        let mut balance = fleet.balance();
        let mut call = task::spawn(balance.call(()));
        assert!(catch_unwind(AssertUnwindSafe(|| call.poll())).is_err());
        drop(call);
        assert_eq!(fleet.in_flight(), 0, "{does:?}");
        assert_eq!(
            says.reports.lock().unwrap()[..],
            [Outcome::failure()],
            "{does:?}"
        );

        *says.places.lock().unwrap() = 1;
        fleet.let_it(1, Does::Answer);
        assert_eq!(
            assert_ready!(task::spawn(balance.call(())).poll()).unwrap(),
            1
        );
    }
}

#[test]
fn a_panicking_classifier_is_a_failure() {
    let fleet = Fleet::new([1]);
    for does in [Does::Answer, Does::Fail] {
        fleet.let_it(1, does);
        let classify = |_: Result<&u16, &(dyn Error + Send + Sync + 'static)>| -> Outcome {
            panic!("classify")
        };
        let mut balance = fleet.layer().classify(classify).layer(fleet.connect());
        let before = fleet.at(1).vitals().load().failures();
        let mut call = task::spawn(balance.call(()));
        assert!(catch_unwind(AssertUnwindSafe(|| call.poll())).is_err());
        drop(call);
        let load = fleet.at(1);
        let load = load.vitals().load();
        assert_eq!((load.failures() - before, load.in_flight()), (1, 0));
    }
}

#[test]
fn a_panic_while_making_a_service_leaves_that_endpoint_out_until_the_next_update() {
    let fleet = Fleet::new([1, 2]);
    let connect = fleet.connect();
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let make = {
        let broken = broken.clone();
        move |endpoint: &Endpoint| {
            let breaks =
                endpoint.address().port() == 1 && broken.load(std::sync::atomic::Ordering::Relaxed);
            assert!(!breaks, "new_service");
            connect(endpoint)
        }
    };
    let mut balance = fleet.layer().layer(make);
    for _ in 0..20 {
        assert_eq!(
            assert_ready!(task::spawn(balance.call(())).poll()).unwrap(),
            2
        );
    }
    fleet.publish([endpoint(1)]);
    let error = fail(&mut balance);
    let none = error.downcast_ref::<NoEndpoint>().unwrap();
    assert_eq!(none.out().collect::<Vec<_>>(), [(Reason::NotMade, 1)]);

    broken.store(false, std::sync::atomic::Ordering::Relaxed);
    fleet.publish([endpoint(1)]);
    assert_eq!(
        assert_ready!(task::spawn(balance.call(())).poll()).unwrap(),
        1
    );
}

// flaw W3
#[test]
fn a_caller_who_goes_away_is_no_failure_but_time_that_is_up_is() {
    let (clock, hand) = Clock::manual();
    let mut fleet = Fleet::new([1]);
    fleet.clock = clock.clone();
    fleet.let_it(1, Does::Hang);
    let mut balance = fleet.balance();
    let load = |of: &dyn Fn(&tower_mesh_core::Load) -> f64| of(fleet.at(1).vitals().load());

    let mut call = task::spawn(balance.call(()));
    assert_pending!(call.poll());
    hand.advance(Duration::from_millis(20));
    drop(call);
    assert_eq!(load(&|load| load.failures() as f64), 0.0);
    assert_eq!(load(&|load| f64::from(load.unanswered(clock.now()))), 1.0);

    let mut call = Box::pin(balance.call(()));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(call.as_mut().poll(&mut cx).is_pending());
    frame::timing_out(|| drop(call));
    assert_eq!(load(&|load| load.failures() as f64), 1.0);
}

#[test]
fn a_local_refusal_beneath_says_nothing_of_the_endpoint_but_draws_no_calls() {
    #[derive(Clone)]
    struct Refuses(Option<Backend>);

    impl Service<()> for Refuses {
        type Response = u16;
        type Error = BoxError;
        type Future = std::pin::Pin<Box<dyn Future<Output = Result<u16, BoxError>> + Send>>;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
            match &mut self.0 {
                Some(inner) => inner.poll_ready(cx),
                None => std::task::Poll::Ready(Ok(())),
            }
        }

        fn call(&mut self, (): ()) -> Self::Future {
            match &mut self.0 {
                Some(inner) => inner.call(()),
                None => Box::pin(async { Err(Refusal::local(Kind::Overloaded).into()) }),
            }
        }
    }

    let fleet = Fleet::new(1..=4);
    let connect = fleet.connect();
    let make = move |endpoint: &Endpoint| {
        Refuses((endpoint.address().port() > 1).then(|| connect(endpoint)))
    };
    let mut balance = fleet.layer().layer(make);
    let refused = (0..400)
        .filter(|_| assert_ready!(task::spawn(balance.call(())).poll()).is_err())
        .count();
    assert!(refused < 40, "{refused} of 400");
    assert_eq!(fleet.at(1).vitals().load().failures(), 0);
}

// flaw W6
#[test]
fn without_endpoints_a_call_fails_at_once_and_says_why() {
    let endpoints = Endpoints::pending(name());
    let mut fleet = Fleet::new([]);
    fleet.endpoints = endpoints.clone();
    let mut balance = fleet.balance();
    let kind =
        |error: &BoxError| Refusal::of(&**error).map(|refusal| (refusal.kind(), refusal.sent()));

    let error = fail(&mut balance);
    assert_eq!(kind(&error), Some((Kind::NoEndpoint, Sent::Never)));
    assert_eq!(
        error.to_string(),
        "no endpoint available: orders: the registry has not answered yet"
    );

    endpoints.publish(Resolution::Found, vec![]);
    let error = fail(&mut balance);
    assert_eq!(kind(&error), Some((Kind::NoEndpoint, Sent::Never)));
    assert_eq!(
        error.to_string(),
        "no endpoint available: orders: the registry lists none"
    );

    endpoints.publish(Resolution::Absent, vec![]);
    let error = fail(&mut balance);
    assert_eq!(kind(&error), Some((Kind::ServiceNotFound, Sent::Never)));
    assert_eq!(
        error.to_string(),
        "service not found: orders: the registry knows no service of this name"
    );
}

#[test]
fn when_all_are_out_the_error_counts_them_by_reason_and_says_when_the_first_is_back() {
    let (clock, _) = Clock::manual();
    let weightless = endpoint(5).with_weight(Weight::new(0));
    let mut fleet = Fleet::of([1, 2, 3, 4].map(endpoint).into_iter().chain([weightless]));
    fleet.clock = clock.clone();
    for (port, seconds) in [(1, 3), (2, 1)] {
        let until = clock.now() + Duration::from_secs(seconds);
        fleet.judge(
            port,
            Standing::Shut(Shut::new(JudgeKind::Breaker, Some(until))),
        );
    }
    fleet
        .judge(3, Standing::Limited)
        .places
        .lock()
        .unwrap()
        .clone_from(&0);
    fleet.at(4).vitals().gate().set_draining(true);

    let error = fail(&mut fleet.balance());
    let none = error.downcast_ref::<NoEndpoint>().unwrap();
    assert_eq!(none.known(), 5);
    let mut out: Vec<_> = none
        .out()
        .map(|(reason, count)| (count, reason.to_string()))
        .collect();
    out.sort_unstable();
    let expect = |count, reason: &str| (count, reason.to_owned());
    assert_eq!(
        out,
        [
            expect(1, "draining"),
            expect(1, "of weight 0"),
            expect(3, "with an open breaker")
        ]
    );
    assert_eq!(none.retry_after(), Some(Duration::from_secs(1)));
    assert_eq!(
        none.source().and_then(Refusal::of).unwrap().retry_after(),
        none.retry_after()
    );
    assert!(
        error
            .to_string()
            .starts_with("no endpoint available: orders: 5 known, ")
    );
    assert!(
        error.to_string().ends_with(" (retry after 1.0s)"),
        "{error}"
    );
}

#[test]
fn no_traffic_goes_to_the_dead_however_many_call() {
    let fleet = Fleet::new(1..=20);
    for port in 1..=20 {
        fleet.judge(port, Standing::Shut(Shut::new(JudgeKind::Breaker, None)));
    }
    let mut balance = fleet.balance();
    for _ in 0..1_000 {
        assert!(fail(&mut balance).is::<NoEndpoint>());
    }
    assert!((1..=20).all(|port| fleet.seen(port).ready_polls == 0));
}

#[test]
fn the_frame_of_a_call_is_hidden_from_endpoint_services() {
    let (clock, _) = Clock::manual();
    let mut fleet = Fleet::new([1]);
    fleet.clock = clock.clone();
    let service = tower::service_fn(|(): ()| async { Ok::<_, BoxError>(frame::deadline()) });
    let mut balance = fleet.layer().layer(tower_mesh_core::Shared::new(service));
    let mut call = pin!(balance.call(()));
    let _ = pin!(frame::Call::new()).poll(&clock, &mut Context::from_waker(Waker::noop()), |cx| {
        frame::shorten_deadline(clock.now() + Duration::from_secs(1));
        call.as_mut()
            .poll(cx)
            .map(|seen| assert_eq!(seen.unwrap(), None))
    });
}
