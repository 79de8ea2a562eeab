//! What is sent again, and how.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use proptest::prelude::*;
use tower::{BoxError, Layer, Service, ServiceExt, limit::ConcurrencyLimit, service_fn};
use tower_mesh_core::{Kind, NeverAgain, Outcome, Ratio, Refusal, Replay};
use tower_mesh_retry::{Budget, Retry, RetryLayer};

use crate::script::{Script, Step, busy, connection_refused, down, fails, judge, ms, ok, status};

/// Allows everything, so that the rules alone decide.
pub(crate) fn generous() -> Budget {
    Budget::new(Ratio::ONE).min_per_second(1_000)
}

fn attempts(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_success_goes_through_with_one_attempt_and_one_clone() {
    let script = Script::new([ok()]);
    let budget = generous();
    let retry = RetryLayer::new(budget.clone()).layer(script.clone());
    assert_eq!(retry.budget().snapshot(Default::default()).deposits, 0);
    let before = script.notes(|notes| notes.clones);
    let mut retry = retry;
    assert_eq!(retry.ready().await.unwrap().call("a").await.unwrap(), 200);
    assert_eq!(script.calls(), 1);
    assert_eq!(script.notes(|notes| notes.clones) - before, 1);
    let now = tower_mesh_core::Clock::tokio().now();
    assert_eq!(budget.snapshot(now).deposits, 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_tried_again_with_the_same_request_on_the_same_clone() {
    let script = Script::new([down(), status(503), ok()]);
    let retry = RetryLayer::new(generous())
        .classify(judge)
        .layer(script.clone());
    let before = script.notes(|notes| notes.clones);
    let answer = retry.clone().oneshot("a").await.unwrap();
    assert_eq!(answer, 200);
    let requests = script.notes(|notes| notes.calls.iter().map(|c| c.1).collect::<Vec<_>>());
    assert_eq!(requests, ["a", "a", "a"]);
    // One by `retry.clone()`, one by the call.
    assert_eq!(script.notes(|notes| notes.clones) - before, 2);
}

proptest! {
    // invariant I11
    #[test]
    fn attempts_are_never_more_than_allowed_and_the_last_answer_is_the_caller_s(
        allowed in 1..6u32,
        answers in prop::collection::vec(prop_oneof![Just(200u16), Just(500), Just(503)], 6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let (script, answer) = runtime.block_on(async {
            let script = Script::new(answers.iter().map(|answer| status(*answer)));
            let retry = RetryLayer::new(generous())
                .attempts(attempts(allowed))
                .classify(judge)
                .layer(script.clone());
            (script, retry.oneshot("a").await.unwrap())
        });
        let needed = answers.iter().position(|answer| *answer == 200);
        let expected = needed.map_or(allowed as usize, |at| (at + 1).min(allowed as usize));
        prop_assert_eq!(script.calls(), expected);
        prop_assert_eq!(answer, answers[expected - 1]);
    }
}

// mesh.md (c) 7: a load shed by the mesh itself is never retried.
#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_mesh_itself_is_never_retried_whatever_the_classifier_says() {
    for kind in [
        Kind::Overloaded,
        Kind::NoEndpoint,
        Kind::CircuitOpen,
        Kind::ShuttingDown,
    ] {
        let script = Script::new([fails(Refusal::local(kind))]);
        let all = |_: Result<&u16, &(dyn std::error::Error + Send + Sync + 'static)>| {
            Outcome::failure().never_sent()
        };
        let retry = RetryLayer::new(generous())
            .classify(all)
            .layer(script.clone());
        let error = retry.oneshot("a").await.unwrap_err();
        assert!(error.is::<Refusal>(), "passed through unchanged: {error}");
        assert_eq!(script.calls(), 1, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_over_retries_do_not_multiply() {
    let script = Script::always(down);
    let layer = RetryLayer::new(generous());
    let retry = layer.layer(layer.layer(script.clone()));
    retry.oneshot("a").await.unwrap_err();
    assert_eq!(script.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn after_the_head_nothing_is_retried() {
    let script = Script::new([status(100)]);
    let retry = RetryLayer::new(generous())
        .classify(judge)
        .layer(script.clone());
    assert_eq!(retry.oneshot("a").await.unwrap(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_cannot_be_retried_any_more_reaches_the_caller_unchanged() {
    let none = Budget::new(Ratio::ZERO).min_per_second(0);
    for (budget, steps, calls) in [
        (generous(), vec![status(500), status(500), status(503)], 3),
        (none, vec![status(503)], 1),
    ] {
        let script = Script::new(steps);
        let retry = RetryLayer::new(budget)
            .classify(judge)
            .layer(script.clone());
        assert_eq!(retry.oneshot("a").await.unwrap(), 503);
        assert_eq!(script.calls(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_asks_to_be_left_alone_is() {
    let script = Script::new([status(599)]);
    let retry = RetryLayer::new(generous())
        .classify(judge)
        .layer(script.clone());
    assert_eq!(retry.oneshot("a").await.unwrap(), 599);
}

/// GET may be sent twice.
#[derive(Clone)]
struct Methods;

impl Replay<&'static str> for Methods {
    type Kept = &'static str;

    fn is_idempotent(&self, request: &&'static str) -> bool {
        *request == "GET"
    }

    fn keep(&self, request: &mut &'static str) -> Option<&'static str> {
        Some(request)
    }

    fn again(&self, kept: &&'static str) -> Option<&'static str> {
        Some(kept)
    }
}

// scenario 9, flaws Q1 and T22
#[tokio::test(start_paused = true)]
async fn a_post_is_sent_again_only_if_it_surely_was_not_sent() {
    for (method, first, calls) in [
        ("GET", status(503), 2),
        ("POST", status(503), 1),
        ("POST", down(), 1),
        ("POST", busy(ms(1)), 1),
        ("POST", connection_refused(), 2),
    ] {
        let told = format!("{method} {first:?}");
        let script = Script::new([first, ok()]);
        let retry = RetryLayer::new(generous())
            .replay(Methods)
            .classify(judge)
            .layer(script.clone());
        let _ = retry.oneshot(method).await;
        assert_eq!(script.calls(), calls, "{told}");
    }
}

/// Tells how often it was cloned.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

// flaws T23 and V2
#[tokio::test(start_paused = true)]
async fn a_request_that_is_sent_once_is_not_cloned() {
    let clones = Arc::default();
    let script = Script::new([down()]);
    let retry = RetryLayer::new(generous())
        .attempts(attempts(1))
        .layer(script.clone());
    let error = retry
        .oneshot(Counted(Arc::clone(&clones)))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "down", "and its error is not dressed up");
    assert_eq!(clones.load(Ordering::Relaxed), 0);
}

// flaws T23 and Q1
#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_cloned_is_sent_once_and_not_refused() {
    struct Streaming;

    let script = Script::<Streaming>::new([connection_refused()]);
    let retry = RetryLayer::new(generous())
        .replay(NeverAgain::default())
        .layer(script.clone());
    let error = retry.oneshot(Streaming).await.unwrap_err();
    assert!(error.is::<Refusal>(), "{error}");
    assert_eq!(script.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_still_here_is_sent_though_it_can_be_neither_cloned_nor_repeated() {
    struct Streaming;

    let script = Script::<Streaming>::new([Step::Unready("restarting".into()), ok()]);
    let before = script.notes(|notes| notes.clones);
    let retry = RetryLayer::new(generous())
        .replay(NeverAgain::default())
        .layer(script.clone());
    assert_eq!(retry.oneshot(Streaming).await.unwrap(), 200);
    assert_eq!(script.calls(), 1);
    // What failed to become ready is replaced: by the test, the call, the retry.
    assert_eq!(script.notes(|notes| notes.clones) - before, 3);
}

// flaw B1
#[tokio::test(start_paused = true)]
async fn every_attempt_is_made_ready_before_it_is_called() {
    // `Script` panics when it is not, and so does tower's limit.
    let script = Script::new([down(), down(), ok()]);
    let limited = ConcurrencyLimit::new(script.clone(), 1);
    let retry = RetryLayer::new(generous()).layer(limited);
    assert_eq!(retry.oneshot("a").await.unwrap(), 200);
    assert_eq!(script.calls(), 3);
}

// flaw B1: the assertion above fails on what seatbelt does.
#[tokio::test]
#[should_panic = "poll_ready"]
async fn an_unready_clone_that_is_called_panics() {
    let limited = ConcurrencyLimit::new(Script::new([ok()]), 1);
    let mut ready = limited;
    ready.ready().await.unwrap();
    let _ = ready.clone().call("a").await;
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_at_once_and_reserves_nothing() {
    let limited = ConcurrencyLimit::new(Script::new([ok()]), 1);
    let mut retry = RetryLayer::new(generous()).layer(limited);
    let mut idle = retry.clone();
    idle.ready().await.unwrap();
    // The idle clone was made ready and holds nothing of the one permit.
    assert_eq!(retry.ready().await.unwrap().call("a").await.unwrap(), 200);
}

#[test]
fn a_future_that_is_pending_does_not_wake_itself() {
    let script = Script::new([Step::Hang]);
    let mut retry = RetryLayer::new(generous()).layer(script);
    let mut call = tokio_test::task::spawn(retry.call("a"));
    assert!(call.poll().is_pending());
    assert!(!call.is_woken());
}

#[tokio::test(start_paused = true)]
async fn one_layer_is_one_budget_however_many_services_it_makes() {
    let layer = RetryLayer::new(Budget::new(Ratio::ZERO).min_per_second(1));
    let script = Script::new([down(), ok(), down()]);
    layer.layer(script.clone()).oneshot("a").await.unwrap();
    layer.layer(script.clone()).oneshot("a").await.unwrap_err();
    assert_eq!(script.calls(), 3);
}

#[test]
fn what_can_be_sent_between_threads_can() {
    fn holds<T: Send + Sync>(_: &T) {}
    fn sends<T: Send>(_: &T) {}

    let mut retry = RetryLayer::default().layer(Script::new([ok()]));
    holds(&retry);
    sends(&retry.call("a"));

    // The service need not be `Sync` (flaw B2).
    let mut retry = RetryLayer::default().layer(NotSync(std::cell::Cell::new(0)));
    sends(&retry);
    sends(&retry.call("a"));
}

#[derive(Clone)]
struct NotSync(std::cell::Cell<u8>);

impl Service<&'static str> for NotSync {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: &'static str) -> Self::Future {
        self.0.set(1);
        std::future::ready(Ok(()))
    }
}

#[test]
fn errors_that_are_not_boxed_are_taken_too() {
    let plain = service_fn(|()| std::future::ready(Ok::<(), std::io::Error>(())));
    let retry: Retry<_, _, _> = RetryLayer::default().layer(plain);
    assert!(tokio_test::block_on(retry.oneshot(())).is_ok());
}
