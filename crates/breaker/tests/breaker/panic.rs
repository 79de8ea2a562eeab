//! A breaker that is asked by a balancer which believes that too many have opened.

use std::num::NonZeroU8;

use futures_util::{FutureExt, StreamExt};
use tower_mesh_breaker::{Policy, Reason, State};
use tower_mesh_core::{Finish, Outcome, Ratio, Standing, frame};

use crate::{MS, S, Target, after};

impl Target {
    fn opened(policy: Policy) -> Self {
        let target = Self::new(policy);
        target.fail();
        assert_eq!(target.breaker().state(), State::Open);
        target
    }

    fn standing_in_panic(&self) -> Standing {
        let gate = self.endpoint.vitals().gate();
        gate.standing_in_panic(self.clock.now())
    }

    fn probe_in_panic(&self, outcome: Outcome) {
        let mut probe = self.attempt_in_panic().expect("a place out of turn");
        assert!(probe.is_probe());
        probe.finish(outcome);
    }

    /// In what time it may be probed, in milliseconds; nothing if that is not known.
    fn due_in(&self) -> Option<u128> {
        let shut = self.attempt_in_panic().expect_err("it is not due");
        let wait = shut.until()?.since(self.clock.now());
        Some((wait + MS / 2).as_millis())
    }
}

#[test]
fn what_calls_have_opened_is_probed_at_once_in_a_panic_and_one_success_closes_it() {
    let target = Target::opened(after(1));
    assert!(target.attempt().is_err(), "without a panic it is shut");
    assert_eq!(target.standing_in_panic(), Standing::Limited);
    target.probe_in_panic(Outcome::success());
    assert_eq!(target.breaker().state(), State::Closed);
    assert!(target.endpoint.vitals().gate().is_open());
}

#[test]
fn a_dead_endpoint_is_probed_when_it_has_been_out_as_long_again_up_to_the_first_open_time() {
    let target = Target::opened(after(1));
    target.probe_in_panic(Outcome::failure());
    let mut waits = Vec::new();
    for _ in 0..100 {
        let wait = target.due_in().expect("it is known");
        waits.push(wait);
        let shut = target.standing_in_panic();
        assert!(matches!(shut, Standing::Shut(shut) if shut.until().is_some()));
        let wait = MS * u32::try_from(wait).expect("small");
        target.time.advance(wait - MS);
        assert!(target.attempt_in_panic().is_err());
        target.time.advance(MS);
        target.probe_in_panic(Outcome::failure());
    }
    assert_eq!(waits[..7], [50, 50, 100, 200, 400, 800, 1_000]);
    assert_eq!(waits[7..], [1_000; 93]);
    let wait = target.breaker().snapshot().retry_after().expect("open");
    assert_eq!(
        (wait + MS / 2).as_millis(),
        1_000,
        "a panic doubles nothing"
    );
}

#[test]
fn what_opens_anew_begins_anew_to_be_probed() {
    let target = Target::opened(after(1));
    target.time.advance(60 * S);
    target.probe_in_panic(Outcome::failure());
    assert_eq!(target.due_in(), Some(1_000));
    target.time.advance(S);
    target.probe_in_panic(Outcome::success());
    target.fail();
    target.probe_in_panic(Outcome::failure());
    assert_eq!(target.due_in(), Some(50));
}

#[test]
fn what_has_been_dead_for_long_is_probed_as_often_as_the_others() {
    for (jitter, soonest, latest) in [(0, 1_000, 1_000), (50, 1_000, 1_500)] {
        let target = Target::opened(after(1).jitter(Ratio::percent(jitter)));
        for _ in 0..6 {
            target.time.advance(90 * S);
            target.fail();
        }
        let regular = target.breaker().snapshot().retry_after().expect("open");
        assert!(regular >= 60 * S - MS);
        let due = target.due_in().expect("it is known");
        assert!((soonest..=latest).contains(&due), "{due}");
    }
}

#[test]
fn in_a_panic_no_more_probes_are_out_than_ever_and_their_leases_end() {
    let two = NonZeroU8::MIN.saturating_add(1);
    let policy = after(1).probes(two).probes_at_once(two).probe_lease(5 * S);
    let target = Target::opened(policy);
    let hung = [(); 2].map(|()| target.attempt_in_panic().expect("a place"));
    assert_eq!(target.due_in(), None);
    assert!(matches!(target.standing_in_panic(), Standing::Shut(_)));
    assert_eq!(target.breaker().snapshot().probes_out, 2);
    target.time.advance(5 * S);
    target.probe_in_panic(Outcome::success());
    target.probe_in_panic(Outcome::success());
    assert_eq!(target.breaker().state(), State::Closed);
    drop(hung);
}

#[test]
fn an_early_probe_that_is_dropped_gives_its_place_back_and_a_timeout_is_its_failure() {
    let target = Target::opened(after(1));
    drop(target.attempt_in_panic().expect("a place"));
    assert_eq!(target.breaker().snapshot().probes_out, 0);
    let probe = target.attempt_in_panic().expect("the place is free");
    frame::timing_out(|| drop(probe));
    assert_eq!(target.breaker().state(), State::Open);
    assert_eq!(target.due_in(), Some(50));
}

#[test]
fn what_is_forced_open_stays_so_in_a_panic() {
    let target = Target::opened(after(1));
    target.breaker().force_open();
    target.time.advance(3_600 * S);
    assert_eq!(target.due_in(), None);
    assert!(matches!(target.standing_in_panic(), Standing::Shut(_)));
    assert_eq!(target.breaker().state(), State::ForcedOpen);
}

#[test]
fn a_closed_breaker_admits_in_a_panic_as_ever() {
    let target = Target::new(after(2));
    assert_eq!(target.standing_in_panic(), Standing::Open);
    for _ in 0..2 {
        let mut call = target.attempt_in_panic().expect("it is closed");
        assert!(!call.is_probe());
        call.finish(Outcome::failure());
    }
    assert_eq!(target.breaker().state(), State::Open, "and judges as ever");
}

#[test]
fn an_early_probe_is_told_with_its_reason_and_is_no_refusal() {
    let target = Target::new(after(1));
    let mut transitions = target.layer.transitions();
    target.fail();
    target.probe_in_panic(Outcome::success());
    let mut next = || {
        let next = transitions.next().now_or_never().flatten();
        next.expect("one more").expect("none was missed")
    };
    assert_eq!(next().reason, Reason::ConsecutiveFailures);
    let early = next();
    assert_eq!((early.from, early.to), (State::Open, State::HalfOpen));
    assert_eq!(
        (early.reason, early.reason.as_str()),
        (Reason::Panic, "panic")
    );
    assert_eq!(next().to, State::Closed);
    assert_eq!(target.breaker().snapshot().rejected, 0);
}
