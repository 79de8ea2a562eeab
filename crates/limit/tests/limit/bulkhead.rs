//! Permits: who gets one, how long it lasts, how many there are.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::Poll,
};

use tokio_test::task::spawn;
use tower::{Service, load::TrackCompletion};
use tower_layer::Layer;
use tower_mesh_core::{Finish, Kind, Outcome, Refusal, Sent};
use tower_mesh_limit::{Overloaded, Permit};

use crate::{Ask, Failed, Inner, Now, OVERLOADED, Switch, bulkhead, call, non_zero, poll};

#[test]
fn a_call_runs_while_there_is_a_permit_and_is_refused_at_once_when_there_is_none() {
    let (layer, inner) = (bulkhead(2), Inner::default());
    let mut service = layer.layer(inner.clone());
    let mut first = call(&mut service, Ask::Never);
    let mut second = call(&mut service, Ask::Later(1));
    let mut third = call(&mut service, Ask::Answer);
    assert_eq!(poll(&mut first), Now::Pending);
    assert_eq!(poll(&mut second), Now::Pending);
    assert_eq!(poll(&mut third), OVERLOADED);
    assert_eq!(
        inner.called(),
        2,
        "what is refused never reaches the service"
    );
    let full = layer.handle().snapshot();
    assert_eq!((full.limit, full.in_use, full.refused), (2, 2, 1));

    assert_eq!(poll(&mut second), Now::Answered);
    assert_eq!(layer.handle().snapshot().in_use, 1);
    assert_eq!(poll(&mut call(&mut service, Ask::Answer)), Now::Answered);
}

#[test]
fn a_refusal_says_what_the_limits_are() {
    let mut service = bulkhead(1).queue(0).layer(Inner::default());
    let mut first = call(&mut service, Ask::Never);
    assert_eq!(poll(&mut first), Now::Pending);
    let Poll::Ready(Err(error)) = call(&mut service, Ask::Answer).poll() else {
        panic!("there was no permit");
    };
    let overloaded = error.downcast_ref::<Overloaded>().unwrap();
    assert_eq!((overloaded.limit(), overloaded.queue()), (1, 0));
    assert!(overloaded.waited().is_zero());
    let refusal = Refusal::of(&*error).unwrap();
    assert_eq!(refusal.kind(), Kind::Overloaded);
    assert_eq!(refusal.sent(), Sent::Never);
    assert!(refusal.is_local(), "it says nothing of an endpoint");
    assert_eq!(
        error.to_string(),
        "overloaded: 1 calls may run at once, and do"
    );
}

#[test]
fn a_call_that_is_not_polled_holds_nothing() {
    let layer = bulkhead(1);
    let mut service = layer.layer(Inner::default());
    let idle = call(&mut service, Ask::Answer);
    assert_eq!(layer.handle().snapshot().in_use, 0);
    assert_eq!(poll(&mut call(&mut service, Ask::Answer)), Now::Answered);
    drop(idle);
}

#[test]
fn one_layer_value_is_one_set_of_permits_and_a_setter_makes_another() {
    let layer = bulkhead(1);
    let mut one = layer.layer(Inner::default());
    let mut two = layer.clone().layer(Inner::default());
    let mut other = layer.clone().queue(0).layer(Inner::default());
    let mut running = call(&mut one, Ask::Never);
    assert_eq!(poll(&mut running), Now::Pending);
    assert_eq!(poll(&mut call(&mut two, Ask::Answer)), OVERLOADED);
    assert_eq!(poll(&mut call(&mut one.clone(), Ask::Answer)), OVERLOADED);
    assert_eq!(poll(&mut call(&mut other, Ask::Answer)), Now::Answered);
}

#[test]
fn errors_of_the_inner_service_pass_unchanged_and_give_the_permit_back() {
    let layer = bulkhead(1);
    let mut service = layer.layer(Inner::default());
    let mut failing = call(&mut service, Ask::Fail);
    let Poll::Ready(Err(error)) = failing.poll() else {
        panic!("it was asked to fail");
    };
    assert_eq!(error.downcast_ref::<Failed>(), Some(&Failed));
    assert_eq!(layer.handle().snapshot().in_use, 0);
}

#[test]
fn a_lower_limit_cancels_nobody_and_lets_nobody_in_until_fewer_run() {
    let layer = bulkhead(3);
    let handle = layer.handle();
    let mut service = layer.layer(Inner::default());
    let mut running: Vec<_> = (0..3).map(|_| call(&mut service, Ask::Later(1))).collect();
    for task in &mut running {
        assert_eq!(poll(task), Now::Pending);
    }
    handle.set_limit(non_zero(1));
    assert_eq!((handle.snapshot().limit, handle.snapshot().in_use), (1, 3));
    for left in [2, 1] {
        assert_eq!(poll(&mut running.pop().unwrap()), Now::Answered);
        assert_eq!(handle.snapshot().in_use, left);
        assert_eq!(poll(&mut call(&mut service, Ask::Answer)), OVERLOADED);
    }
    assert_eq!(poll(&mut running.pop().unwrap()), Now::Answered);
    assert_eq!(poll(&mut call(&mut service, Ask::Answer)), Now::Answered);
}

#[test]
fn the_inner_call_ends_before_the_next_is_let_in() {
    /// Looks, when its call is dropped, whether the permit is still there.
    #[derive(Clone)]
    struct Looks(
        tower_mesh_limit::BulkheadHandle,
        Arc<std::sync::atomic::AtomicUsize>,
    );
    struct Look(Looks);
    impl Drop for Look {
        fn drop(&mut self) {
            let in_use = self.0.0.snapshot().in_use;
            self.0.1.store(in_use, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let layer = bulkhead(1);
    let seen = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let looks = Looks(layer.handle(), Arc::clone(&seen));
    let mut service = layer.layer(tower::service_fn(move |()| {
        let look = Look(looks.clone());
        async move {
            std::future::pending::<()>().await;
            drop(look);
            Ok::<_, Failed>("answer")
        }
    }));
    let mut task = spawn(service.call(()));
    assert!(task.poll().is_pending());
    drop(task);
    assert_eq!(seen.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(layer.handle().snapshot().in_use, 0);
}

/// Keeps the permit in the response.
#[derive(Clone, Copy)]
pub(crate) struct KeepInResponse;

impl<T> TrackCompletion<Permit, T> for KeepInResponse {
    type Output = (T, Permit);

    fn track_completion(&self, mut permit: Permit, response: T) -> (T, Permit) {
        permit.finish(Outcome::success());
        (response, permit)
    }
}

#[test]
fn a_permit_lasts_as_long_as_its_completion_says() {
    let layer = bulkhead(1).completion(KeepInResponse);
    let mut service = layer.layer(Inner::default());
    let Poll::Ready(Ok(response)) = call(&mut service, Ask::Answer).poll() else {
        panic!("there was a permit");
    };
    assert_eq!(layer.handle().snapshot().in_use, 1, "the response is read");
    assert!(matches!(
        call(&mut service, Ask::Answer).poll(),
        Poll::Ready(Err(_))
    ));
    drop(response);
    assert_eq!(layer.handle().snapshot().in_use, 0);
}

// I10
#[test]
fn a_panic_of_the_inner_service_loses_no_permit_and_poisons_nothing() {
    let layer = bulkhead(1).queue(1);
    let inner = Inner::default();
    let mut service = layer.layer(inner.clone());
    for ask in [Ask::PanicInCall, Ask::PanicLater(0), Ask::PanicLater(1)] {
        // The call is dropped after the panic, or by it.
        let mut task = call(&mut service, ask.clone());
        let polls = AssertUnwindSafe(|| while task.poll().is_pending() {});
        assert!(catch_unwind(polls).is_err());
        drop(task);
        let mut task = call(&mut service, ask);
        let polls = AssertUnwindSafe(move || while task.poll().is_pending() {});
        assert!(catch_unwind(polls).is_err());
        assert_eq!(layer.handle().snapshot().in_use, 0);
        assert_eq!(inner.running(), 0);
        assert_eq!(poll(&mut call(&mut service, Ask::Answer)), Now::Answered);
    }
}

#[test]
fn directly_over_a_service_it_calls_without_a_clone_but_polls_with_a_permit_only() {
    let (layer, inner) = (bulkhead(1), Inner::default());
    let mut service = layer.over(inner.clone());
    let switch = Switch::default();
    let mut first = call(&mut service, Ask::When(switch.clone()));
    let mut second = call(&mut service, Ask::PanicLater(0));
    assert_eq!(inner.held(), 1 + 2, "the service and two calls, no clone");
    assert_eq!(poll(&mut first), Now::Pending);
    assert_eq!(poll(&mut second), OVERLOADED);
    switch.turn_on();
    assert_eq!(poll(&mut first), Now::Answered);
}
