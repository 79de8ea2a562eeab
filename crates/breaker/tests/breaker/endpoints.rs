//! A breaker at the gate of an endpoint: what a balancer sees of it.

use std::num::{NonZeroU8, NonZeroU16, NonZeroU32};

use tower_mesh_breaker::{BreakerLayer, Policy, State, Window};
use tower_mesh_core::{
    Clock, Endpoint, Finish, NewLayer, Outcome, Ratio, Rng, Sampling, Standing, frame,
};

use crate::{MS, S, Target, after};

fn rate(window: Window, min_calls: u32) -> Policy {
    after(0)
        .failure_rate(Ratio::percent(50))
        .window(window)
        .min_calls(NonZeroU32::new(min_calls).expect("not zero"))
}

fn last(calls: u16) -> Window {
    Window::last(NonZeroU16::new(calls).expect("not zero"))
}

fn probes(policy: Policy, needed: u8, at_once: u8) -> Policy {
    policy
        .probes(NonZeroU8::new(needed).expect("not zero"))
        .probes_at_once(NonZeroU8::new(at_once).expect("not zero"))
}

impl Target {
    fn standing(&self) -> Standing {
        let gate = self.endpoint.vitals().gate();
        gate.standing(|| self.clock.now())
    }

    fn state(&self) -> State {
        self.breaker().state()
    }
}

// scenario 23
#[test]
fn ninety_nine_failures_stay_closed_and_the_hundredth_opens() {
    for window in [last(100), Window::over(10 * S)] {
        let target = Target::new(rate(window, 100));
        for _ in 0..99 {
            target.fail();
        }
        assert_eq!(target.state(), State::Closed);
        target.fail();
        assert_eq!(target.state(), State::Open);
    }
}

// scenario 23
#[test]
fn half_of_a_hundred_calls_slow_open_it_without_a_failure() {
    let policy = rate(last(100), 100).slow_calls(50 * MS, Ratio::percent(50));
    let target = Target::new(policy);
    for call in 1..=100 {
        assert_eq!(target.state(), State::Closed);
        let time = if call % 2 == 0 { 50 * MS } else { 49 * MS };
        target.call(Outcome::success(), time);
    }
    assert_eq!(target.state(), State::Open);
    assert_eq!(target.endpoint.vitals().load().failures(), 0);
}

#[test]
fn a_probe_that_succeeds_slowly_has_failed() {
    let policy = rate(last(2), 2).slow_calls(50 * MS, Ratio::percent(50));
    let target = Target::new(policy);
    target.call(Outcome::success(), 50 * MS);
    target.call(Outcome::success(), 50 * MS);
    target.time.advance(S);
    target.call(Outcome::success(), 50 * MS);
    assert_eq!(target.state(), State::Open);
}

// scenario 23
#[test]
fn ten_probes_go_out_the_eleventh_is_refused_and_five_failures_reopen() {
    let target = Target::new(probes(after(1), 10, 10));
    target.fail();
    target.time.advance(S);
    let mut out: Vec<_> = (0..10)
        .map(|_| target.attempt().expect("a place"))
        .collect();
    assert!(target.attempt().is_err());
    assert!(matches!(target.standing(), Standing::Shut(_)));
    for (i, mut probe) in out.drain(..).enumerate() {
        probe.finish(if i % 2 == 0 {
            Outcome::success()
        } else {
            Outcome::failure()
        });
        let expected = if i == 9 { State::Open } else { State::HalfOpen };
        assert_eq!(target.state(), expected, "probe {i}");
    }
}

// scenario 24
#[test]
fn the_seventh_failure_shuts_the_gate_and_a_probe_a_second_later_opens_it() {
    let target = Target::new(Policy::default().jitter(Ratio::percent(50)));
    for _ in 0..6 {
        target.fail();
    }
    assert_eq!(target.standing(), Standing::Open);
    target.fail();
    let Standing::Shut(shut) = target.standing() else {
        panic!("the gate is not shut");
    };
    let until = shut.until().expect("it is known");
    let wait = until.since(target.clock.now());
    assert!(wait >= S - MS && wait <= S * 3 / 2, "{wait:?}");
    target.time.advance_to(until);
    assert_eq!(target.standing(), Standing::Limited);

    let mut probe = target.attempt().expect("its time is over");
    assert!(probe.is_probe());
    assert!(
        matches!(target.standing(), Standing::Shut(_)),
        "a single one"
    );
    probe.finish(Outcome::success());
    assert_eq!(target.standing(), Standing::Open);
}

// scenario 24
#[test]
fn each_failed_probe_doubles_the_open_time_to_a_minute_and_recovery_takes_it_back() {
    let target = Target::new(after(1));
    let open_time = || {
        let snapshot = target.breaker().snapshot();
        let wait = snapshot.retry_after().expect("it is open") + MS / 2;
        u64::try_from(wait.as_millis()).expect("small")
    };
    target.fail();
    let mut times = Vec::new();
    for _ in 0..8 {
        times.push(open_time() / 1_000);
        target.time.advance(60 * S);
        target.fail();
    }
    assert_eq!(times, [1, 2, 4, 8, 16, 32, 60, 60]);

    target.time.advance(60 * S);
    target.succeed();
    target.time.advance(5 * S);
    target.fail();
    assert_eq!(
        open_time(),
        60_000,
        "what comes back at once has not recovered"
    );
    target.breaker().reset();
    target.fail();
    assert_eq!(open_time(), 1_000, "somebody says that it has");
    for _ in 0..5 {
        target.time.advance(60 * S);
        target.fail();
    }
    target.time.advance(60 * S);
    target.succeed();
    target.time.advance(3_600 * S);
    target.fail();
    assert_eq!(open_time(), 1_000, "an hour of peace is a recovery");
}

// scenario 25, flaw T3
#[test]
fn a_probe_that_is_dropped_gives_its_place_back_and_says_nothing() {
    let target = Target::new(after(1));
    target.fail();
    target.time.advance(S);
    drop(target.attempt().expect("its time is over"));
    assert_eq!(target.breaker().snapshot().probes_out, 0);
    assert_eq!(target.standing(), Standing::Limited);
    target.succeed();
    assert_eq!(target.state(), State::Closed);
}

// flaw T4
#[test]
fn an_attempt_given_up_by_the_meshs_own_timeout_has_failed() {
    let target = Target::new(after(3));
    for _ in 0..3 {
        let attempt = target.attempt().expect("it is closed");
        frame::timing_out(|| drop(attempt));
    }
    assert_eq!(target.state(), State::Open);
    target.time.advance(S);
    let probe = target.attempt().expect("its time is over");
    frame::timing_out(|| drop(probe));
    assert_eq!(target.state(), State::Open);
}

// flaw T3
#[test]
fn a_probe_that_never_returns_loses_its_place_when_its_lease_ends() {
    let target = Target::new(probes(after(1), 2, 2).probe_lease(5 * S));
    target.fail();
    target.time.advance(S);
    let mut hung = [target.attempt(), target.attempt()].map(|probe| probe.expect("a place"));
    target.time.advance(4 * S);
    assert!(target.attempt().is_err());
    target.time.advance(S);
    assert_eq!(target.standing(), Standing::Limited);
    target.succeed();
    for probe in &mut hung {
        probe.finish(Outcome::failure());
    }
    assert_eq!(target.state(), State::HalfOpen, "their verdicts are stale");
    target.succeed();
    assert_eq!(target.state(), State::Closed);
}

// flaws T5, F1
#[test]
fn calls_from_before_the_trip_neither_close_nor_reopen() {
    let target = Target::new(after(2));
    let mut old: Vec<_> = (0..6).map(|_| target.attempt().expect("closed")).collect();
    let mut end = |outcome| old.pop().expect("enough").finish(outcome);
    target.fail();
    target.fail();
    end(Outcome::success());
    assert_eq!(target.state(), State::Open);
    target.time.advance(S);
    let mut probe = target.attempt().expect("its time is over");
    end(Outcome::success());
    end(Outcome::failure());
    assert_eq!(target.state(), State::HalfOpen);
    probe.finish(Outcome::success());
    end(Outcome::failure());
    end(Outcome::failure());
    assert_eq!(target.state(), State::Closed);
    assert_eq!(target.breaker().snapshot().consecutive_failures, 0);
}

#[test]
fn what_was_counted_before_it_opened_is_not_held_against_it_afterwards() {
    let target = Target::new(rate(Window::over(3_600 * S), 4));
    for _ in 0..4 {
        target.fail();
    }
    target.time.advance(S);
    target.succeed();
    let counted = target
        .breaker()
        .snapshot()
        .failures
        .expect("there is a rule");
    assert_eq!((counted.calls, counted.against), (0, 0));
    for _ in 0..3 {
        target.fail();
    }
    assert_eq!(target.state(), State::Closed);
}

#[test]
fn an_overload_counts_in_the_rate_and_for_a_probe_but_not_in_the_row() {
    let target = Target::new(after(2));
    for _ in 0..10 {
        target.call(Outcome::overload(), MS);
    }
    assert_eq!(target.state(), State::Closed);
    target.fail();
    target.call(Outcome::overload(), MS);
    target.fail();
    assert_eq!(target.state(), State::Open);
    target.time.advance(S);
    target.call(Outcome::overload(), MS);
    assert_eq!(target.state(), State::Open);

    let target = Target::new(rate(last(4), 4));
    for _ in 0..4 {
        target.call(Outcome::overload(), MS);
    }
    assert_eq!(target.state(), State::Open);
}

#[test]
fn a_ramp_admits_a_growing_share_and_then_all() {
    let target = {
        let (clock, time) = Clock::manual();
        let layer = BreakerLayer::new(after(1).ramp_up(100 * S))
            .clock(clock.clone())
            .rng(Rng::seeded(7));
        let endpoint = Endpoint::new(([127, 0, 0, 1], 80).into());
        layer.layer_for(&endpoint);
        Target {
            endpoint,
            layer,
            clock,
            time,
        }
    };
    target.fail();
    target.time.advance(S);
    target.succeed();
    let admitted = || (0..10_000).filter(|_| target.attempt().is_ok()).count();
    // Three standard deviations are at most 150.
    for (share, wait) in [(1_000, 0), (3_000, 30), (6_000, 30), (9_000, 30)] {
        target.time.advance(wait * S);
        assert_eq!(target.state(), State::Ramping);
        assert_eq!(target.standing(), Standing::Limited);
        assert!(admitted().abs_diff(share) < 150, "{share}: {}", admitted());
    }
    target.time.advance(10 * S);
    assert_eq!(target.standing(), Standing::Open);
    assert_eq!(admitted(), 10_000);
    assert_eq!(target.state(), State::Closed);
    assert!(target.endpoint.vitals().gate().is_open());
}

#[test]
fn a_failure_on_the_ramp_opens_it_again_for_longer() {
    let target = Target::new(after(1).ramp_up(MS * 10));
    target.fail();
    target.time.advance(S);
    target.succeed();
    assert_eq!(target.state(), State::Ramping);
    let mut admitted = (0..10_000).filter_map(|_| target.attempt().ok());
    admitted
        .next()
        .expect("one in ten")
        .finish(Outcome::failure());
    assert_eq!(target.state(), State::Open);
    let snapshot = target.breaker().snapshot();
    assert_eq!(
        snapshot
            .retry_after()
            .map(|t| t.as_millis().div_ceil(1_000)),
        Some(2)
    );
}

#[test]
fn forced_states_hold_until_somebody_lets_go() {
    let target = Target::new(after(1));
    let breaker = target.breaker();
    breaker.force_open();
    target.time.advance(3_600 * S);
    assert!(matches!(target.standing(), Standing::Shut(shut) if shut.until().is_none()));
    assert!(target.attempt().is_err());
    breaker.force_closed();
    for _ in 0..100 {
        target.fail();
    }
    assert_eq!(breaker.state(), State::ForcedClosed);
    breaker.release_force();
    assert_eq!(breaker.state(), State::Closed);
    target.fail();
    breaker.release_force();
    assert_eq!(breaker.state(), State::Open, "it was not forced");
    breaker.reset();
    assert!(target.endpoint.vitals().gate().is_open());
}

#[test]
fn one_endpoint_has_one_breaker_whoever_asks_and_whatever_it_is_called_now() {
    let target = Target::new(after(1));
    let described_anew = Endpoint::new(([127, 0, 0, 1], 80).into())
        .with_zone("eu-1")
        .keeping(&target.endpoint);
    let other = BreakerLayer::default();
    target.layer.layer_for(&described_anew);
    other.layer_for(&described_anew);
    target.fail();
    let breaker = other.breaker(&described_anew).expect("it has one");
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(&**breaker.name(), "127.0.0.1:80");
    let stranger = Endpoint::new(([127, 0, 0, 1], 81).into());
    assert!(target.layer.breaker(&stranger).is_none());
}

#[test]
fn a_snapshot_tells_of_one_moment() {
    let target = Target::new(Policy::default().slow_calls(10 * MS, Ratio::ONE));
    for _ in 0..3 {
        target.succeed();
    }
    target.call(Outcome::failure(), 10 * MS);
    let snapshot = target.breaker().snapshot();
    let failures = snapshot.failures.expect("there is a rule");
    let slow = snapshot.slow_calls.expect("there is a rule");
    assert_eq!((failures.rate(), slow.rate()), (Some(0.25), Some(0.25)));
    assert_eq!((failures.calls, snapshot.consecutive_failures), (4, 1));
    assert_eq!((snapshot.opened, snapshot.rejected), (0, 0));
    assert_eq!(snapshot.retry_after(), None);
    for _ in 0..6 {
        target.fail();
    }
    assert!(target.attempt().is_err());
    let snapshot = target.breaker().snapshot();
    assert_eq!((snapshot.opened, snapshot.rejected), (1, 1));
    assert_eq!(snapshot.failures.map(|f| f.calls), Some(0));
    assert!(snapshot.open_until > Some(snapshot.taken));
}

#[test]
fn an_endpoint_that_goes_takes_its_breaker_with_it() {
    let target = Target::new(after(1));
    let vitals = std::sync::Arc::downgrade(target.endpoint.vitals());
    target.fail();
    let breaker = target.breaker();
    drop(target);
    breaker.reset();
    drop(breaker);
    assert!(vitals.upgrade().is_none());
}

#[test]
fn a_call_needs_no_reading_of_the_clock_beyond_the_two_that_every_call_takes() {
    let target = Target::new(Policy::default());
    let before = target.time.reads();
    let attempt = target
        .endpoint
        .vitals()
        .attempt(&target.clock, Sampling::Mean);
    attempt.expect("it is closed").finish(Outcome::success());
    assert_eq!(target.time.reads() - before, 2);
}
