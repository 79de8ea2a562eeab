//! Calls that are dropped, user code that panics, and tower's contract.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use futures_util::FutureExt;
use tower::{BoxError, Layer, Service};
use tower_mesh_core::{
    Clock, PerCall, Ratio,
    frame::Call,
    testing::contract::{Contract, Subject},
};
use tower_mesh_retry::{Budget, HedgeAfter, HedgeLayer};

use super::{Stage, attempts};
use crate::script::{Step, ms, ok};

#[test]
fn a_call_dropped_at_any_point_leaves_nothing_behind() {
    let steps = || {
        [
            Step::AnswerAfter(ms(80), Ok(503)),
            Step::Hang,
            Step::AnswerAfter(ms(70), Ok(503)),
            Step::Hang,
        ]
    };
    let mut most = 0;
    for polls in 0..40 {
        let stage = Stage::new();
        let script = stage.script(steps());
        let mut hedge = stage.hedged(&stage.layer(ms(50), 4), &script);
        let mut call = tokio_test::task::spawn(hedge.call("a"));
        for _ in 0..polls {
            assert!(call.poll().is_pending());
            stage.hand.advance(ms(10));
        }
        drop(call);
        let told = format!("{polls} polls");
        assert_eq!(script.notes(|notes| notes.in_flight), 0, "{told}");
        assert_eq!(script.notes(|notes| notes.timed_out), 0, "{told}");
        assert_eq!(stage.hand.timers(), 0, "{told}");
        assert_eq!(script.holders(), 2, "{told}");
        most = most.max(script.calls());
        assert_eq!(
            stage.spent(),
            script.calls().saturating_sub(1) as u64,
            "{told}"
        );
        let account = stage.budget.snapshot(stage.clock.now());
        assert_eq!(
            account.balance as u64 + stage.spent(),
            account.deposits,
            "{told}"
        );
    }
    assert_eq!(most, 4, "the last of them had all its attempts");
}

#[test]
fn a_wait_that_an_endpoint_asked_for_and_that_is_given_up_gives_its_attempt_back() {
    let stage = Stage::new();
    let script = stage.script([crate::script::busy(ms(300))]);
    let mut hedge = stage.hedged(&stage.layer(ms(50), 2), &script);
    let mut call = tokio_test::task::spawn(hedge.call("a"));
    assert!(call.poll().is_pending());
    assert_eq!(stage.budget.snapshot(stage.clock.now()).balance, 100.0);
    drop(call);
    assert_eq!(stage.budget.snapshot(stage.clock.now()).balance, 101.0);
}

#[test]
fn a_panic_of_any_attempt_drops_the_others_and_harms_no_other_call() {
    for panics in 0..2 {
        let stage = Stage::new();
        let mut steps = [Step::Hang, Step::Hang, ok()];
        steps[panics] = Step::Panic;
        let script = stage.script(steps);
        let mut hedge = stage.hedged(&stage.layer(ms(50), 2), &script);
        let mut call = tokio_test::task::spawn(hedge.call("a"));
        let caught = catch_unwind(AssertUnwindSafe(|| {
            while !call.poll().is_ready() {
                stage.hand.advance(ms(10));
            }
        }));
        assert!(caught.is_err());
        drop(call);
        assert_eq!(script.notes(|notes| notes.in_flight), 0);
        assert_eq!((stage.hand.timers(), script.holders()), (0, 2));
        assert_eq!(tower_mesh_core::frame::deadline(), None);
        let script = stage.script([ok()]);
        let mut hedge = stage.hedged(&stage.layer(ms(50), 2), &script);
        assert!(stage.call(&mut hedge, ms(0)).is_some());
    }
}

/// Hedges after 20 ms, with a budget in which nothing expires.
fn layer(clock: &Clock) -> HedgeLayer {
    let long = Duration::from_secs(100 * 365 * 24 * 3_600);
    let budget = Budget::new(Ratio::ONE)
        .min_per_second(0)
        .window(long)
        .burst(long);
    (0..10).for_each(|_| budget.deposit(clock.now()));
    HedgeLayer::new(budget)
        .attempts(attempts(3))
        .after(HedgeAfter::Fixed(ms(20)))
        .clock(clock.clone())
}

/// Opens the frame of each call.
#[derive(Clone)]
struct Opens<S>(S, Clock);

impl<S> Service<&'static str> for Opens<S>
where
    S: Service<&'static str, Error = BoxError>,
    S::Future: 'static,
    S::Response: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = futures_util::future::LocalBoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: &'static str) -> Self::Future {
        let (mut call, clock) = (Box::pin(self.0.call(request)), self.1.clone());
        let mut frame = Box::pin(Call::new());
        let poll = move |cx: &mut std::task::Context<'_>| {
            frame.as_mut().poll(&clock, cx, |cx| call.as_mut().poll(cx))
        };
        Box::pin(std::future::poll_fn(poll))
    }
}

fn examine<S>(
    make: impl Fn(HedgeLayer, tower_mesh_core::testing::contract::Inner<&'static str>, &Clock) -> S,
) where
    S: Service<&'static str> + Clone,
{
    let (clock, hand) = Clock::manual();
    let contract = Contract::new(|| "request", || "response")
        .on_clock(hand)
        .attempts(3);
    contract
        .check(|inner| Subject::new(make(layer(&clock), inner, &clock)))
        .now_or_never()
        .expect("its clock waits for nobody")
        .expect("it keeps the contract");
}

// invariants I2, I9 to I11
#[test]
fn hedges_keep_towers_contract() {
    examine(|layer, inner, _| layer.layer(inner));
}

#[test]
fn hedges_directly_over_what_is_always_ready_keep_it_too() {
    examine(|layer, inner, _| layer.over(PerCall::new(inner)));
}

#[test]
fn hedges_joined_to_a_frame_above_keep_it_too() {
    examine(|layer, inner, clock| Opens(layer.joined().over(PerCall::new(inner)), clock.clone()));
}

#[test]
fn hedges_beneath_a_retry_keep_it_too() {
    let (clock, hand) = Clock::manual();
    let contract = Contract::new(|| "request", || "response")
        .on_clock(hand)
        .attempts(4);
    contract
        .check(|inner| {
            let hedge = layer(&clock).attempts(attempts(2)).beneath_retry();
            let budget = Budget::new(Ratio::ONE).min_per_second(1_000);
            let retry = tower_mesh_retry::RetryLayer::new(budget).clock(clock.clone());
            Subject::new(retry.over(hedge.layer(inner)))
        })
        .now_or_never()
        .expect("its clock waits for nobody")
        .expect("it keeps the contract");
}

#[test]
fn what_can_be_sent_between_threads_can() {
    fn holds<T: Send + Sync>(_: &T) {}
    fn sends<T: Send>(_: &T) {}

    let stage = Stage::new();
    let mut hedge = stage.hedged(&stage.layer(ms(50), 2), &stage.script([ok()]));
    holds(&hedge);
    sends(&hedge.call("a"));
}
