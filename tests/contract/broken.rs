//! Pairs of which one has a fault: the same examination finds it. So what the others pass is no empty form.

use std::{
    collections::VecDeque,
    error::Error,
    future::{Future, poll_fn},
    mem,
    num::NonZeroU32,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service, limit::ConcurrencyLimit, load::TrackCompletion};
use tower_mesh::{
    balance::{Balance, BalanceLayer},
    core::{
        Attempt, BoxError, Layered, Outcome, Promises, Shared, Verdict,
        testing::contract::{Inner, Rule},
    },
    limit::PerCall,
};

use crate::support::{ATTEMPTS, DEADLINE, Exam, Kit, Situation, none};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    CallsAClone,
    PollsTheFinished,
    Spins,
    Poisons,
    CallsOnWithoutCaller,
    ForgetsItsPermitWhenDropped,
    ForgetsItsPermitInPanics,
    WakesWhoIsGone,
}

const FAULTS: [Fault; 8] = [
    Fault::CallsAClone,
    Fault::PollsTheFinished,
    Fault::Spins,
    Fault::Poisons,
    Fault::CallsOnWithoutCaller,
    Fault::ForgetsItsPermitWhenDropped,
    Fault::ForgetsItsPermitInPanics,
    Fault::WakesWhoIsGone,
];

/// A bulkhead for one call at a time.
#[derive(Clone)]
struct Faulty<S> {
    inner: S,
    fault: Fault,
    permits: Arc<Semaphore>,
    lock: Arc<Mutex<()>>,
    bell: Arc<Bell>,
}

fn faulty<S>(kit: &Kit, fault: Fault, inner: S) -> Faulty<S> {
    let permits = Arc::new(Semaphore::new(1));
    let handle = Arc::clone(&permits);
    kit.at_rest(move || none(1 - handle.available_permits(), "permits are out"));
    Faulty {
        inner,
        fault,
        permits,
        lock: Arc::default(),
        bell: Arc::default(),
    }
}

impl<S> Service<&'static str> for Faulty<S>
where
    S: Service<&'static str> + Clone + 'static,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: &'static str) -> Self::Future {
        Box::pin(self.clone().run(request))
    }
}

impl<S> Faulty<S>
where
    S: Service<&'static str> + Clone + 'static,
    S::Error: Into<BoxError>,
{
    async fn run(mut self, request: &'static str) -> Result<S::Response, BoxError> {
        let fault = self.fault;
        let _rung = match fault {
            Fault::WakesWhoIsGone => Some(Bell::wait(&self.bell).await),
            _ => None,
        };
        let permit = Arc::clone(&self.permits).acquire_owned().await?;
        let held = Held(Some(permit), fault);
        poll_fn(|cx| self.inner.poll_ready(cx))
            .await
            .map_err(Into::into)?;
        let call = match fault {
            Fault::CallsAClone => self.inner.clone().call(request),
            _ => self.inner.call(request),
        };
        let mut call = Called(Some(Box::pin(call)), fault);
        let response = poll_fn(|cx| self.poll(&mut call, cx)).await;
        held.end();
        response.map_err(Into::into)
    }

    fn poll<F: Future>(&self, call: &mut Called<F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let future = call.0.as_mut().unwrap();
        match self.fault {
            Fault::Spins => {
                cx.waker().wake_by_ref();
                future.as_mut().poll(cx)
            }
            Fault::Poisons => {
                let _locked = self.lock.lock().unwrap();
                future.as_mut().poll(cx)
            }
            Fault::PollsTheFinished => {
                let end = future.as_mut().poll(cx);
                if end.is_ready() {
                    let _ = future.as_mut().poll(cx);
                }
                end
            }
            _ => future.as_mut().poll(cx),
        }
    }
}

struct Held(Option<OwnedSemaphorePermit>, Fault);

impl Held {
    fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let forgets = match self.1 {
            Fault::ForgetsItsPermitWhenDropped => !std::thread::panicking(),
            Fault::ForgetsItsPermitInPanics => std::thread::panicking(),
            _ => false,
        };
        if let (Some(permit), true) = (self.0.take(), forgets) {
            permit.forget();
        }
    }
}

struct Called<F>(Option<Pin<Box<F>>>, Fault);

impl<F> Drop for Called<F> {
    fn drop(&mut self) {
        if self.1 == Fault::CallsOnWithoutCaller {
            mem::forget(self.0.take());
        }
    }
}

/// A queue that wakes the first, whether or not somebody waits there still.
#[derive(Default)]
struct Bell {
    taken: AtomicBool,
    waiting: Mutex<VecDeque<Waker>>,
}

struct Rung(Arc<Bell>);

impl Bell {
    fn wait(this: &Arc<Self>) -> impl Future<Output = Rung> {
        let bell = Arc::clone(this);
        poll_fn(move |cx| {
            if !bell.taken.swap(true, Ordering::Relaxed) {
                return Poll::Ready(Rung(Arc::clone(&bell)));
            }
            bell.waiting.lock().unwrap().push_back(cx.waker().clone());
            Poll::Pending
        })
    }
}

impl Drop for Rung {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Relaxed);
        let next = self.0.waiting.lock().unwrap().pop_front();
        next.into_iter().for_each(Waker::wake);
    }
}

/// What an examination finds of a fault, wherever it is.
fn rules(fault: Fault) -> &'static [Rule] {
    match fault {
        Fault::CallsAClone => &[Rule::CallsOnlyTheReady], // flaw B1
        Fault::PollsTheFinished => &[Rule::LeavesTheFinished],
        Fault::Spins => &[Rule::NeverWakesItself], // flaws T12, T16
        Fault::Poisons => &[Rule::SurvivesPanics], // flaws T14, W7
        Fault::CallsOnWithoutCaller => &[Rule::TakesAlong],
        Fault::ForgetsItsPermitWhenDropped => &[Rule::AtRest],
        Fault::ForgetsItsPermitInPanics => &[Rule::AtRest, Rule::SurvivesPanics],
        Fault::WakesWhoIsGone => &[Rule::LosesNoWakeup],
    }
}

#[test]
fn a_faulty_layer_beneath_a_deadline_is_found_out() {
    for fault in FAULTS {
        // Patient, or the deadline would wake who has lost its wake-up.
        Exam::plain().breaks(Situation::Patient, rules(fault), |kit, inner| {
            kit.deadline().over(faulty(kit, fault, inner))
        });
    }
}

#[test]
fn a_faulty_layer_over_a_bulkhead_is_found_out() {
    for fault in FAULTS {
        // A bulkhead makes ready what it calls, so any clone of it may be called; and what is polled after its end
        // panics there.
        if matches!(fault, Fault::CallsAClone | Fault::PollsTheFinished) {
            continue;
        }
        Exam::plain().breaks(Situation::Usual, rules(fault), |kit, inner| {
            faulty(kit, fault, kit.bulkhead().layer(inner))
        });
    }
}

// flaw T18
#[test]
fn towers_limit_over_retries_keeps_its_permit_while_it_is_idle() {
    let exam = Exam::plain().attempts(ATTEMPTS);
    exam.breaks(Situation::Usual, &[Rule::IdleHoldsNothing], |kit, inner| {
        ConcurrencyLimit::new(kit.retry().layer(inner), 1)
    });
}

#[test]
fn a_bulkhead_over_one_attempt_too_many_is_found_out() {
    let exam = Exam::plain().attempts(ATTEMPTS);
    exam.breaks(Situation::Usual, &[Rule::KeepsToAttempts], |kit, inner| {
        let one_more = NonZeroU32::new(ATTEMPTS + 1).unwrap();
        let retry = kit.retry().attempts(one_more);
        kit.bulkhead().over(retry.layer(inner))
    });
}

#[test]
fn a_bulkhead_over_a_service_without_a_deadline_does_not_end_in_time() {
    let exam = Exam::plain().ends_within(DEADLINE);
    exam.breaks(Situation::Usual, &[Rule::EndsInTime], |kit, inner| {
        kit.bulkhead().over(PerCall::new(inner))
    });
}

/// Loses the attempt, and with it what it holds of the endpoint.
#[derive(Clone, Copy)]
struct Leaks;

impl<Res> TrackCompletion<Attempt, Res> for Leaks {
    type Output = Res;

    fn track_completion(&self, attempt: Attempt, response: Res) -> Res {
        mem::forget(attempt);
        response
    }
}

impl Promises<Verdict> for Leaks {}

type Failure = dyn Error + Send + Sync + 'static;

fn deferred(_: Result<&&'static str, &Failure>) -> Verdict {
    Verdict::Deferred
}

fn hears_of_no_failure(answer: Result<&&'static str, &Failure>) -> Outcome {
    match answer {
        Ok(_) => Outcome::success(),
        Err(_) => Outcome::neutral(),
    }
}

#[test]
fn retries_over_a_balancer_that_loses_attempts_are_found_out() {
    let of_a_probe = [Rule::AtRest, Rule::AnswersCloned];
    for (situation, rules) in [
        (Situation::Usual, &[Rule::AtRest][..]),
        (Situation::HalfOpen, &of_a_probe),
    ] {
        let exam = Exam::plain().attempts(ATTEMPTS);
        exam.breaks(situation, rules, |kit, inner| {
            let layer = |layer: BalanceLayer| layer.classify(deferred).completion(Leaks);
            kit.retry().layer(balance(kit, inner, layer))
        });
    }
}

#[test]
fn retries_over_a_balancer_that_hears_of_no_failure_are_found_out() {
    let exam = Exam::plain().attempts(ATTEMPTS);
    exam.breaks(Situation::Usual, &[Rule::OneOutcome], |kit, inner| {
        let layer = |layer: BalanceLayer| layer.classify(hears_of_no_failure);
        kit.retry().layer(balance(kit, inner, layer))
    });
}

/// As the kit's, but for what `change` makes of it.
fn balance<K, C>(
    kit: &Kit,
    inner: Inner<&'static str>,
    change: impl Fn(BalanceLayer) -> BalanceLayer<K, C>,
) -> Balance<Inner<&'static str>, K, C>
where
    K: Clone + Send + Sync + 'static,
    C: Clone + Send + Sync + 'static,
{
    let endpoints = kit.fleet(1);
    let services = Layered::new(Shared::new(inner), kit.endpoint_breakers());
    let balance = change(kit.balance_over(&endpoints)).layer(services);
    kit.watch(&endpoints);
    balance
}
