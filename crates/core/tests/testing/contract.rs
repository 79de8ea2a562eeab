//! The contract of tower: services that keep it pass, and each kind of fault breaks the rule that is meant for it.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use tower_mesh_core::{
    Clock,
    testing::contract::{Contract, Inner, Rule, Subject},
};
use tower_service::Service;

use crate::examined::{Fault, bare, examined};

fn contract() -> (Contract<&'static str, &'static str>, Clock) {
    let (clock, handle) = Clock::manual();
    (
        Contract::new(|| "request", || "response").on_clock(handle),
        clock,
    )
}

#[test]
fn a_service_that_keeps_the_contract_passes() {
    let (contract, clock) = contract();
    let checked = contract.check(|inner| examined(inner, &clock, Fault::None));
    tokio_test::block_on(checked).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_service_with_a_timer_on_tokios_clock_passes() {
    Contract::new(|| "request", || "response")
        .ends_within(Duration::from_secs(1))
        .check(|inner| Subject::new(bare(inner, &Clock::tokio(), Fault::EndsInTime)))
        .await
        .unwrap();
}

#[test]
fn a_service_that_may_try_again_passes() {
    let (contract, clock) = contract();
    let contract = contract.attempts(3);
    let checked = contract.check(|inner| examined(inner, &clock, Fault::TriesThrice));
    tokio_test::block_on(checked).unwrap();
}

/// Hands everything through, as most of tower's own services do.
#[derive(Clone)]
struct Through<S>(S);

impl<S: Service<Req>, Req> Service<Req> for Through<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        ready!(self.0.poll_ready(cx))?;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> S::Future {
        self.0.call(request)
    }
}

#[test]
fn a_service_that_hands_readiness_through_only_holds_something_when_idle() {
    let through = |inner: Inner<&'static str>| Subject::new(Through(inner));
    let broken = tokio_test::block_on(contract().0.check(through)).unwrap_err();
    assert_eq!(broken.rules(), [Rule::IdleHoldsNothing.name()]);
    let contract = contract().0.without(Rule::IdleHoldsNothing);
    tokio_test::block_on(contract.check(through)).unwrap();
}

fn broken_by(fault: Fault, looks_inside: bool) -> Vec<&'static str> {
    let (contract, clock) = contract();
    let contract = match fault {
        Fault::EndsWithTheInner => contract.ends_within(Duration::from_secs(1)),
        _ => contract,
    };
    let broken = tokio_test::block_on(contract.check(|inner| match looks_inside {
        true => examined(inner, &clock, fault),
        false => Subject::new(bare(inner, &clock, fault)),
    }));
    broken.map_or_else(|violations| violations.rules(), |()| vec![])
}

#[test]
fn each_fault_breaks_the_rule_that_is_meant_for_it() {
    for (fault, rule) in [
        (Fault::CallsTheUnready, Rule::CallsOnlyTheReady), // flaw B1
        (Fault::PollsTheFinished, Rule::LeavesTheFinished),
        (Fault::ReservesInReady, Rule::IdleHoldsNothing), // flaw T18
        (Fault::ForgetsToBeWoken, Rule::Answers),
        (Fault::IsNotReadyAsAClone, Rule::AnswersCloned),
        (Fault::KeepsReadinessWhenDropped, Rule::DroppedWhenReady),
        (Fault::KeepsPermitsWhenDropped, Rule::AtRest),
        (Fault::KeepsPermitsInPanics, Rule::AtRest),
        (Fault::Poisons, Rule::SurvivesPanics), // flaws T14, W7
        (Fault::Spins, Rule::NeverWakesItself), // flaws T12, T16
        (Fault::CallsOnWithoutCaller, Rule::TakesAlong),
        (Fault::HoldsItself, Rule::TakesAlong),
        (Fault::WakesOneForAll, Rule::LosesNoWakeup),
        (Fault::HandsToTheDropped, Rule::LosesNoWakeup),
        (Fault::TriesThrice, Rule::KeepsToAttempts),
        (Fault::CountsNoPanics, Rule::OneOutcome),
        (Fault::CountsTwice, Rule::OneOutcome),
        (Fault::CountsTheDropped, Rule::OneOutcome),
        (Fault::EndsWithTheInner, Rule::EndsInTime),
    ] {
        let broken = broken_by(fault, true);
        assert!(
            broken.contains(&rule.name()),
            "{fault:?} has broken {broken:?}"
        );
    }
}

#[test]
fn what_is_kept_shows_from_outside_too() {
    for (fault, rule) in [
        (Fault::KeepsPermitsWhenDropped, Rule::DroppedAnywhere),
        (Fault::KeepsPermitsInPanics, Rule::SurvivesPanics),
    ] {
        let broken = broken_by(fault, false);
        assert!(
            broken.contains(&rule.name()),
            "{fault:?} has broken {broken:?}"
        );
    }
}

#[test]
fn a_violation_names_the_rule_and_the_situation() {
    let (contract, clock) = contract();
    let checked = contract.check(|inner| examined(inner, &clock, Fault::Spins));
    let message = tokio_test::block_on(checked).unwrap_err().to_string();
    assert!(
        message.contains("- it never wakes itself: called over an inner service that waits"),
        "{message}"
    );
}
