//! Settings and clocks that nobody should have.

use std::num::{NonZeroU8, NonZeroU16, NonZeroU32};
use std::time::Duration;

use proptest::prelude::*;
use tower_mesh_breaker::{Policy, State, Window};
use tower_mesh_core::{Outcome, Ratio};

use crate::{S, Target, after};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::from_nanos(1)),
        Just(S),
        Just(YEAR),
        Just(Duration::MAX),
    ]
}

prop_compose! {
    fn policy()(
        consecutive in proptest::option::of(any::<u32>()),
        rate in 0u8..=100,
        slow in time(),
        window in prop_oneof![time().prop_map(Err), any::<u16>().prop_map(Ok)],
        min_calls in any::<u32>(),
        times in [time(), time(), time(), time(), time()],
        probes in any::<(u8, u8)>(),
        jitter in 0u8..=100,
    ) -> Policy {
        let [open, most, recovery, lease, ramp] = times;
        Policy::default()
            .consecutive_failures(consecutive.and_then(NonZeroU32::new))
            .failure_rate(Ratio::percent(rate))
            .slow_calls(slow, Ratio::percent(rate))
            .window(match window {
                Ok(calls) => Window::last(NonZeroU16::new(calls).unwrap_or(NonZeroU16::MIN)),
                Err(time) => Window::over(time),
            })
            .min_calls(NonZeroU32::new(min_calls).unwrap_or(NonZeroU32::MIN))
            .open_for(open)
            .open_at_most(most)
            .recovery(recovery)
            .probe_lease(lease)
            .ramp_up(ramp)
            .jitter(Ratio::percent(jitter))
            .reopen_at(Ratio::percent(rate))
            .probes(NonZeroU8::new(probes.0).unwrap_or(NonZeroU8::MIN))
            .probes_at_once(NonZeroU8::new(probes.1).unwrap_or(NonZeroU8::MIN))
    }
}

proptest! {
    // flaw F3: a window of length zero makes the first call panic and all later ones spin
    #[test]
    fn no_policy_and_no_clock_makes_it_panic(
        policy in policy(),
        calls in prop::collection::vec((any::<bool>(), time()), 0..60),
    ) {
        let target = Target::new(policy);
        for (succeeds, wait) in calls {
            if let Ok(mut attempt) = target.attempt() {
                target.time.advance(wait);
                let outcome = if succeeds { Outcome::success() } else { Outcome::failure() };
                tower_mesh_core::Finish::finish(&mut attempt, outcome);
            }
            let snapshot = target.breaker().snapshot();
            prop_assert!(snapshot.since <= snapshot.taken);
            prop_assert_eq!(snapshot.probes_out, 0);
        }
    }
}

#[test]
fn a_clock_that_stands_still_opens_the_breaker_and_does_not_wear_it_out() {
    let target = Target::new(Policy::default());
    for _ in 0..7 {
        target.fail();
    }
    for _ in 0..1_000 {
        assert!(target.attempt().is_err());
    }
    assert_eq!(target.breaker().snapshot().rejected, 1_000);
    assert_eq!(target.breaker().state(), State::Open);
}

#[test]
fn a_clock_that_jumps_a_year_is_a_recovery_and_no_storm() {
    let target = Target::new(after(2));
    target.fail();
    target.time.advance(YEAR);
    target.fail();
    assert_eq!(target.breaker().state(), State::Open);
    target.time.advance(YEAR);
    let probe = target.attempt().expect("its time is over");
    assert!(target.attempt().is_err(), "one probe, however long it was");
    drop(probe);
    target.succeed();
    assert_eq!(target.breaker().state(), State::Closed);
}

#[test]
fn an_open_time_without_end_has_none_and_a_person_can_end_it() {
    let target = Target::new(after(1).open_for(Duration::MAX).jitter(Ratio::ONE));
    target.fail();
    target.time.advance(100 * YEAR);
    assert!(target.attempt().is_err());
    target.breaker().reset();
    target.succeed();
}
