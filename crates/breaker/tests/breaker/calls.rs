//! A breaker around a service: what happens to a call, however it ends.

use std::{
    cell::RefCell,
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::FutureExt;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt,
    limit::ConcurrencyLimit,
    load::{CompleteOnResponse, TrackCompletion},
    service_fn,
};
use tower_mesh_breaker::{Breaker, BreakerLayer, Open, Permit, State};
use tower_mesh_core::{
    BoxError, Clock, Finish, Kind, ManualClock, Outcome, Promises, Refusal, Sent, Verdict, frame,
};

use crate::{Ask, MS, S, after, answer, ask, service};

/// What a classifier sees of an error.
type Fault = dyn Error + Send + Sync + 'static;

fn layer(failures: u32) -> (BreakerLayer, Breaker, ManualClock) {
    let (clock, time) = Clock::manual();
    let layer = BreakerLayer::new(after(failures))
        .clock(clock)
        .name("orders");
    let breaker = layer.handle().clone();
    (layer, breaker, time)
}

/// A breaker that has opened and whose time is over.
fn due() -> (BreakerLayer, Breaker, ManualClock) {
    let (layer, breaker, time) = layer(1);
    let _ = ask(&mut service(&layer), Ask::Fail);
    assert_eq!(breaker.state(), State::Open);
    time.advance(S);
    (layer, breaker, time)
}

#[test]
fn an_open_breaker_refuses_at_once_and_says_when_to_come_back() {
    let (layer, breaker, time) = layer(1);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = {
        let calls = Arc::clone(&calls);
        service_fn(move |request| {
            calls.fetch_add(1, Ordering::Relaxed);
            answer(request)
        })
    };
    let mut service = layer.layer(counted);
    let error = ask(&mut service, Ask::Fail).unwrap_err();
    assert!(
        error.is::<std::io::Error>(),
        "the service's own errors pass unchanged"
    );

    time.advance(S / 4);
    let error = ask(&mut service, Ask::Succeed).unwrap_err();
    let open: &Open = error.downcast_ref().expect("the breaker refuses");
    assert_eq!(open.name(), "orders");
    assert_eq!(
        open.retry_after().map(|t| t.as_millis().div_ceil(10) * 10),
        Some(750)
    );
    assert_eq!(
        open.to_string(),
        "circuit open: orders has been failing and is left alone for a while (retry after 750.0ms)"
    );
    let refusal = Refusal::of(&*error).expect("it is in its sources");
    assert!(open.source().is_some());
    assert_eq!(
        (refusal.kind(), refusal.sent()),
        (Kind::CircuitOpen, Sent::Never)
    );
    assert!(refusal.is_local());
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(breaker.snapshot().rejected, 1);
}

#[test]
fn a_refused_call_that_is_polled_again_does_not_slip_through() {
    let (layer, breaker, _) = layer(1);
    breaker.force_open();
    let mut refused = Box::pin(service(&layer).call(Ask::Succeed));
    assert!(refused.as_mut().now_or_never().expect("at once").is_err());
    let again = catch_unwind(AssertUnwindSafe(|| refused.now_or_never()));
    assert!(again.is_err());
}

#[test]
fn a_refusal_of_a_breaker_beneath_says_nothing_of_the_service() {
    let (inner, inner_breaker, _) = layer(1);
    let (outer, outer_breaker, _) = layer(1);
    inner_breaker.force_open();
    let mut service = outer.layer(inner.layer(service_fn(answer)));
    let error = ask(&mut service, Ask::Succeed).unwrap_err();
    assert!(error.is::<Open>());
    assert_eq!(outer_breaker.state(), State::Closed);
}

// flaw T6
#[test]
fn clones_and_repeated_layers_share_one_state() {
    let (layer, breaker, _) = layer(3);
    let mut services = [service(&layer), service(&layer), service(&layer.clone())];
    let mut clone = services[0].clone();
    for service in &mut services {
        let _ = ask(service, Ask::Fail);
    }
    assert_eq!(breaker.state(), State::Open);
    assert!(ask(&mut clone, Ask::Succeed).unwrap_err().is::<Open>());
}

#[test]
fn a_changed_layer_begins_anew_and_leaves_the_old_one_alone() {
    let (layer, breaker, _) = layer(1);
    let renamed = layer.clone().name("invoices");
    let _ = ask(&mut service(&layer), Ask::Fail);
    assert_eq!(
        (breaker.state(), renamed.handle().state()),
        (State::Open, State::Closed)
    );
    let classified = layer.classify(|_: Result<&(), &Fault>| Outcome::success());
    assert_eq!(
        classified.handle().state(),
        State::Open,
        "it has the same breaker"
    );
}

#[test]
fn it_is_always_ready_and_reserves_nothing() {
    let (layer, breaker, _) = due();
    let limited = ConcurrencyLimit::new(service_fn(answer), 1);
    let mut service = layer.layer(limited);
    let mut idle = service.clone();
    for _ in 0..10 {
        let mut ready = task::spawn(poll_ready::<_, Ask>(&mut idle));
        assert_ready!(ready.poll()).expect("always ready");
    }
    assert_eq!(breaker.snapshot().probes_out, 0);
    assert_eq!(
        ask(&mut service, Ask::Succeed).expect("the idle clone holds nothing"),
        "done"
    );
    assert_eq!(breaker.state(), State::Closed);
}

fn poll_ready<S: Service<R>, R>(service: &mut S) -> impl Future<Output = Result<(), S::Error>> {
    std::future::poll_fn(|cx| service.poll_ready(cx))
}

#[test]
fn a_future_that_is_never_polled_takes_nothing() {
    let (layer, breaker, _) = due();
    let mut service = service(&layer);
    let future = service.call(Ask::Succeed);
    assert_eq!(breaker.snapshot().probes_out, 0);
    drop(future);
    assert_eq!(breaker.state(), State::Open);
}

/// Pending this many times, then ready, then pending as often, then over.
#[derive(Clone)]
struct Lingering {
    pendings: usize,
    left: usize,
}

impl Service<bool> for Lingering {
    type Response = ();
    type Error = BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.left == 0 {
            return Poll::Ready(Ok(()));
        }
        self.left -= 1;
        Poll::Pending
    }

    fn call(&mut self, succeeds: bool) -> Self::Future {
        assert_eq!(self.left, 0, "called when it was not ready");
        let mut left = self.pendings;
        Box::pin(std::future::poll_fn(move |_| {
            if left == 0 {
                return Poll::Ready(succeeds.then_some(()).ok_or_else(|| "no".into()));
            }
            left -= 1;
            Poll::Pending
        }))
    }
}

// scenario 25
#[test]
fn dropped_at_any_point_a_probe_gives_its_place_back() {
    for pendings in 0..3 {
        for polls in 0..=2 * pendings {
            let (layer, breaker, _) = due();
            let mut service = layer.layer(Lingering {
                pendings,
                left: pendings,
            });
            let mut future = task::spawn(service.call(true));
            for _ in 0..polls {
                assert_pending!(future.poll());
                assert_eq!(breaker.snapshot().probes_out, 1);
                assert!(!future.is_woken(), "nobody wakes itself");
            }
            drop(future);
            assert_eq!(breaker.snapshot().probes_out, 0, "{pendings} {polls}");
            assert_eq!(breaker.snapshot().consecutive_failures, 0);
            let mut ready = layer.layer(Lingering {
                pendings: 0,
                left: 0,
            });
            assert!(ready.call(true).now_or_never().expect("at once").is_ok());
            assert_eq!(breaker.state(), State::Closed);
        }
    }
}

// flaw T11
#[test]
fn who_is_refused_waits_for_nothing() {
    let (layer, _, time) = layer(1);
    let mut service = service(&layer);
    let _ = ask(&mut service, Ask::Fail);
    for _ in 0..100 {
        let mut refused = task::spawn(service.call(Ask::Succeed));
        assert!(assert_ready!(refused.poll()).is_err());
        assert!(!refused.is_woken());
    }
    assert_eq!(time.timers_registered(), 0);
}

#[test]
fn an_error_of_readiness_is_a_failure() {
    #[derive(Clone)]
    struct Broken;

    impl Service<()> for Broken {
        type Response = ();
        type Error = BoxError;
        type Future = std::future::Ready<Result<(), BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Err("cannot connect".into()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            unreachable!("it is never ready")
        }
    }

    let (layer, breaker, _) = layer(1);
    let answer = layer.layer(Broken).call(()).now_or_never();
    assert_eq!(
        answer.expect("at once").unwrap_err().to_string(),
        "cannot connect"
    );
    assert_eq!(breaker.state(), State::Open);
}

// invariant I10
#[test]
fn a_panic_of_the_service_is_a_failure_and_costs_no_place() {
    let (layer, breaker, time) = layer(1);
    let mut service = service(&layer);
    for _ in 0..3 {
        let call = service.call(Ask::Panic);
        assert!(catch_unwind(AssertUnwindSafe(|| call.now_or_never())).is_err());
        assert_eq!(breaker.state(), State::Open);
        assert_eq!(breaker.snapshot().probes_out, 0);
        time.advance(60 * S);
    }
    assert!(ask(&mut service, Ask::Succeed).is_ok());
    assert_eq!(breaker.state(), State::Closed);
}

// invariant I10
#[test]
fn a_panic_of_the_classifier_is_a_failure_and_costs_no_place() {
    let (layer, breaker, time) = layer(1);
    let classify = |result: Result<&&str, &Fault>| match result {
        Ok(_) => panic!("a bug in the classifier"),
        Err(_) => Outcome::neutral(),
    };
    let mut service = layer.classify(classify).layer(service_fn(answer));
    let call = service.call(Ask::Succeed);
    assert!(catch_unwind(AssertUnwindSafe(|| call.now_or_never())).is_err());
    assert_eq!(breaker.state(), State::Open);
    time.advance(S);
    let call = service.call(Ask::Succeed);
    assert!(catch_unwind(AssertUnwindSafe(|| call.now_or_never())).is_err());
    let snapshot = breaker.snapshot();
    assert_eq!(
        (snapshot.state, snapshot.probes_out, snapshot.opened),
        (State::Open, 0, 2)
    );
}

// flaw T7: there it is called under the breaker's lock
#[test]
fn a_classifier_may_look_at_the_breaker_it_feeds_and_call_through_it() {
    let (layer, breaker, _) = layer(1);
    let seen = RefCell::new(Vec::new());
    let again = RefCell::new(service(&layer));
    let classify = |result: Result<&&str, &Fault>| {
        seen.borrow_mut().push(breaker.snapshot().state);
        let _ = ask(&mut *again.borrow_mut(), Ask::Fail);
        breaker.reset();
        if result.is_ok() {
            Outcome::success()
        } else {
            Outcome::failure()
        }
    };
    let mut service = layer.classify(classify).layer(service_fn(answer));
    assert!(ask(&mut service, Ask::Succeed).is_ok());
    assert!(ask(&mut service, Ask::Succeed).is_ok());
    assert_eq!(*seen.borrow(), [State::Closed, State::Closed]);
}

#[test]
fn a_classifier_decides_what_is_a_failure() {
    let (layer, breaker, _) = layer(1);
    let classify = |result: Result<&&str, &Fault>| match result {
        Ok(_) => Outcome::failure(),
        Err(_) => Outcome::success(),
    };
    let mut service = layer.classify(classify).layer(service_fn(answer));
    let _ = ask(&mut service, Ask::Fail);
    assert_eq!(breaker.state(), State::Closed);
    let _ = ask(&mut service, Ask::Succeed);
    assert_eq!(breaker.state(), State::Open);
}

/// Hands the permit on with the response, as one does that waits for the end of a body.
#[derive(Clone)]
struct WithBody;

impl<Res> TrackCompletion<Permit, Res> for WithBody {
    type Output = (Res, Permit);

    fn track_completion(&self, permit: Permit, response: Res) -> Self::Output {
        (response, permit)
    }
}

impl Promises<Verdict> for WithBody {}

#[test]
fn a_deferred_verdict_comes_with_the_end_of_the_body() {
    let (layer, breaker, time) = layer(1);
    let classify = |result: Result<&&str, &Fault>| match result {
        Ok(_) => Verdict::Deferred,
        Err(_) => Verdict::Deferred,
    };
    let mut service = layer
        .classify(classify)
        .completion(WithBody)
        .layer(service_fn(answer));
    let (_, mut body) = ask(&mut service, Ask::Succeed).expect("its head is good");
    assert_eq!(breaker.state(), State::Closed);
    body.finish(Outcome::failure());
    drop(body);
    assert_eq!(breaker.state(), State::Open);

    // scenario 25
    time.advance(S);
    let (_, body) = ask(&mut service, Ask::Succeed).expect("its head is good");
    assert_eq!(breaker.snapshot().probes_out, 1);
    assert!(
        ask(&mut service, Ask::Succeed).is_err(),
        "the probe lasts as long as its body"
    );
    drop(body);
    assert_eq!(breaker.state(), State::HalfOpen);
    let error = ask(&mut service, Ask::Fail).expect_err("the probe goes out and fails");
    assert!(error.is::<std::io::Error>());
    assert_eq!(
        breaker.state(),
        State::Open,
        "an error has no body to wait for"
    );
}

// flaw T4
#[test]
fn a_call_dropped_by_the_meshs_own_timeout_has_failed() {
    let (layer, breaker, _) = layer(2);
    let mut service = service(&layer);
    for _ in 0..2 {
        let mut call = Box::pin(service.call(Ask::Hang));
        assert!(call.as_mut().now_or_never().is_none());
        frame::timing_out(|| drop(call));
    }
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn slow_is_what_the_whole_call_took_readiness_included() {
    let (clock, time) = Clock::manual();
    let policy = after(0)
        .slow_calls(50 * MS, tower_mesh_core::Ratio::ONE)
        .min_calls(std::num::NonZeroU32::MIN);
    let layer = BreakerLayer::new(policy).clock(clock);
    let mut service = service(&layer);
    let _ = ask(&mut service, Ask::Take(49 * MS, time.clone()));
    assert_eq!(layer.handle().state(), State::Closed);
    let lingering = Lingering {
        pendings: 1,
        left: 1,
    };
    let mut lingering = layer.layer(lingering);
    let mut call = task::spawn(lingering.call(true));
    assert_pending!(call.poll());
    time.advance(50 * MS);
    assert_pending!(call.poll());
    assert!(assert_ready!(call.poll()).is_ok());
    drop(call);
    let slow = layer.handle().snapshot();
    assert_eq!(slow.slow_calls.map(|slow| slow.against), Some(1));
}

#[test]
fn a_call_reads_the_clock_twice_alone_and_in_a_frame() {
    let (clock, time) = Clock::manual();
    let layer = BreakerLayer::new(after(1)).clock(clock.clone());
    let mut service = service(&layer);
    let before = time.reads();
    let _ = ask(&mut service, Ask::Succeed);
    assert_eq!(time.reads() - before, 2);

    let mut nested = layer.layer(layer.layer(service_fn(answer)));
    let before = time.reads();
    let mut call = pin!(nested.call(Ask::Succeed));
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let done = pin!(frame::Call::new()).poll(&clock, &mut cx, |cx| call.as_mut().poll(cx));
    assert!(done.is_ready());
    assert_eq!(time.reads() - before, 2, "two breakers share both readings");
}

#[tokio::test(start_paused = true)]
async fn it_runs_on_tokios_paused_clock() {
    // flaw T9
    let layer = BreakerLayer::new(after(1));
    let mut service = ServiceBuilder::new()
        .layer(layer.clone())
        .service_fn(answer);
    let _ = service.ready().await.expect("always").call(Ask::Fail).await;
    assert!(
        service
            .ready()
            .await
            .expect("always")
            .call(Ask::Succeed)
            .await
            .is_err()
    );
    tokio::time::advance(S).await;
    assert!(
        service
            .ready()
            .await
            .expect("always")
            .call(Ask::Succeed)
            .await
            .is_ok()
    );
    assert_eq!(layer.handle().state(), State::Closed);
}

#[test]
fn services_and_futures_are_send_and_fit_towers_stacks() {
    fn is_good<T: Send + Sync + 'static>(_: &T) {}
    fn is_send<T: Send>(_: &T) {}
    let layer = BreakerLayer::default().completion(CompleteOnResponse::default());
    is_good(&layer);
    let mut service = ServiceBuilder::new()
        .boxed_clone()
        .layer(layer)
        .service_fn(answer);
    is_send(&service.call(Ask::Succeed));
}
