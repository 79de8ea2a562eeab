//! Where a breaker stands, and where it may go from there: plain values, no atomics, no time.

use std::fmt;

use tower_mesh_core::{Availability, Ticket};

use crate::policy::Policy;

/// The state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum State {
    /// Every call is admitted and judged.
    Closed,
    /// Somebody wants every call to be admitted, whatever becomes of it.
    ForcedClosed,
    /// No call is admitted until its time is up.
    Open,
    /// Some calls are admitted as probes.
    HalfOpen,
    /// The probes have come back well; a growing share of the calls is admitted.
    Ramping,
    /// Somebody wants no call to be admitted.
    ForcedOpen,
}

impl State {
    const ALL: [Self; 6] = [
        Self::Closed,
        Self::ForcedClosed,
        Self::Open,
        Self::HalfOpen,
        Self::Ramping,
        Self::ForcedOpen,
    ];

    /// The word for it in logs and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Ramping => "ramping",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
        }
    }

    /// Whether somebody's hand holds it there.
    pub const fn is_forced(self) -> bool {
        matches!(self, Self::ForcedOpen | Self::ForcedClosed)
    }

    /// How an endpoint in it counts among those of its service.
    pub(crate) const fn availability(self) -> Availability {
        match self {
            Self::Closed | Self::Ramping | Self::ForcedClosed => Availability::In,
            Self::Open | Self::HalfOpen => Availability::Out,
            Self::ForcedOpen => Availability::Withdrawn,
        }
    }

    /// Whether the breaker has to be asked before a call: its flag on the gate. The states in which it has not come first.
    pub(crate) const fn limits(self) -> bool {
        self as u8 > Self::ForcedClosed as u8
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A state, the epoch that began with it, and its probes. It fits one atomic word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    pub(crate) epoch: u32,
    pub(crate) state: State,
    /// How often it has opened in a row, without a lasting recovery in between; 31 is as good as more.
    pub(crate) openings: u8,
    /// Probes under way.
    pub(crate) out: u8,
    /// Probes that have come back.
    pub(crate) done: u8,
    /// Those of them that have failed. While open: those that have opened it, so none if it was opened by calls.
    pub(crate) failed: u8,
}

const MOST_OPENINGS: u8 = 31;

impl Phase {
    pub(crate) const START: Self = Self {
        epoch: 0,
        state: State::Closed,
        openings: 0,
        out: 0,
        done: 0,
        failed: 0,
    };

    pub(crate) fn pack(self) -> u64 {
        u64::from(self.epoch) << 32
            | (self.state as u64) << 29
            | u64::from(self.openings) << 24
            | u64::from(self.out) << 16
            | u64::from(self.done) << 8
            | u64::from(self.failed)
    }

    /// The epoch, if every call is admitted: what a call asks first, so it makes no phase of the word for it.
    pub(crate) fn free(word: u64) -> Option<u32> {
        let state = word >> 29 & 0b111;
        (state <= State::ForcedClosed as u64).then_some((word >> 32) as u32)
    }

    pub(crate) fn unpack(word: u64) -> Self {
        Self {
            epoch: (word >> 32) as u32,
            // Three bits are two more than there are states; only `pack` writes the word.
            state: State::ALL
                .get((word >> 29 & 0b111) as usize)
                .copied()
                .unwrap_or(State::Closed),
            openings: (word >> 24) as u8 & MOST_OPENINGS,
            out: (word >> 16) as u8,
            done: (word >> 8) as u8,
            failed: word as u8,
        }
    }

    /// The beginning of `state`, in an epoch of its own.
    pub(crate) fn enter(self, state: State) -> Self {
        Self {
            epoch: self.epoch.wrapping_add(1),
            state,
            openings: self.openings,
            ..Self::START
        }
    }

    /// It opens once more, after the openings that are still remembered.
    pub(crate) fn open(self, remembered: u8) -> Self {
        Self {
            openings: remembered.saturating_add(1).min(MOST_OPENINGS),
            ..self.enter(State::Open)
        }
    }

    /// Whether a probe has opened it, not calls.
    pub(crate) fn is_confirmed(self) -> bool {
        self.state == State::Open && self.failed > 0
    }

    /// Its time is up: half-open, with the first probe under way.
    pub(crate) fn probe(self) -> Self {
        Self {
            out: 1,
            ..self.enter(State::HalfOpen)
        }
    }

    /// Half-open before its time is up. Should this probe fail, it opens for no longer than it would have been open: nobody
    /// has waited. Should it come back well, there was less to be remembered.
    pub(crate) fn probe_early(self) -> Self {
        Self {
            openings: self.openings.saturating_sub(1),
            ..self.probe()
        }
    }

    /// One more probe under way, if there is a place: no more at once than may be, and in all no more than are needed.
    pub(crate) fn another_probe(self, policy: &Policy) -> Option<Self> {
        let is_free = self.out < policy.most_probes()
            && u16::from(self.out) + u16::from(self.done) < policy.probes_needed().into();
        is_free.then_some(Self {
            out: self.out.wrapping_add(1),
            ..self
        })
    }

    /// The lease of the probes under way has ended: what they report no longer counts, a new one has the first of their
    /// places. What others have reported stays.
    pub(crate) fn renew(self) -> Self {
        Self {
            done: self.done,
            failed: self.failed,
            ..self.probe()
        }
    }

    /// This phase, if the probe with `ticket` is one of its own.
    pub(crate) fn of_probe(self, ticket: Ticket) -> Option<Self> {
        let is_own = self.state == State::HalfOpen && self.epoch == ticket.epoch();
        is_own.then_some(self)
    }

    /// A probe was abandoned: its place is free.
    pub(crate) fn abandon(self) -> Self {
        Self {
            out: self.out.saturating_sub(1),
            ..self
        }
    }

    /// A probe has come back; with the last that was needed, or with one failure too many, the phase ends.
    pub(crate) fn settle(self, failed: bool, policy: &Policy) -> Self {
        let settled = Self {
            done: self.done.saturating_add(1),
            failed: self.failed.saturating_add(failed.into()),
            ..self.abandon()
        };
        if policy.reopens(settled.failed) {
            Self {
                failed: settled.failed,
                ..settled.open(settled.openings)
            }
        } else if settled.done < policy.probes_needed() {
            settled
        } else if policy.ramps() {
            settled.enter(State::Ramping)
        } else {
            settled.enter(State::Closed)
        }
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::num::NonZeroU8;

    fn ten_probes() -> Policy {
        let ten = NonZeroU8::MIN.saturating_add(9);
        Policy::default().probes(ten).probes_at_once(ten)
    }

    prop_compose! {
        fn phase()(
            epoch in any::<u32>(),
            state in prop::sample::select(&State::ALL[..]),
            openings in 0..=MOST_OPENINGS,
            out in any::<u8>(),
            done in any::<u8>(),
            failed in any::<u8>(),
        ) -> Phase {
            Phase { epoch, state, openings, out, done, failed }
        }
    }

    proptest! {
        #[test]
        fn a_phase_fits_its_word(phase in phase()) {
            prop_assert_eq!(Phase::unpack(phase.pack()), phase);
        }

        #[test]
        fn no_step_panics_and_each_new_state_is_a_new_epoch(phase in phase(), failed in any::<bool>()) {
            let policy = ten_probes();
            let next = phase.settle(failed, &policy);
            prop_assert!(next.state == phase.state || next.epoch == phase.epoch.wrapping_add(1));
            prop_assert_eq!(Phase::unpack(next.pack()), next);
            for next in [phase.open(phase.openings), phase.probe(), phase.probe_early(), phase.renew(), phase.abandon()] {
                prop_assert_eq!(Phase::unpack(next.pack()), next);
            }
            if let Some(next) = phase.another_probe(&policy) {
                prop_assert!(next.out <= 10 && Phase::unpack(next.pack()) == next);
            }
        }
    }

    // scenario 23
    #[test]
    fn ten_probes_are_admitted_the_eleventh_is_not_and_the_fifth_failure_reopens() {
        let policy = ten_probes();
        let mut phase = Phase::START.open(0).probe();
        for _ in 1..10 {
            phase = phase.another_probe(&policy).unwrap();
        }
        assert_eq!((phase.out, phase.another_probe(&policy)), (10, None));
        for _ in 0..5 {
            phase = phase.settle(false, &policy);
        }
        assert_eq!(phase.another_probe(&policy), None, "ten in all");
        for _ in 0..4 {
            phase = phase.settle(true, &policy);
        }
        assert_eq!(phase.state, State::HalfOpen);
        let reopened = phase.settle(true, &policy);
        assert_eq!((reopened.state, reopened.openings), (State::Open, 2));
        assert_eq!(phase.settle(false, &policy).state, State::Closed);
    }

    #[test]
    fn a_lease_that_ends_frees_the_places_and_keeps_what_is_known() {
        let policy = ten_probes();
        let mut phase = Phase::START.open(0).probe();
        phase = phase.another_probe(&policy).unwrap();
        phase = phase.settle(true, &policy).renew();
        assert_eq!((phase.out, phase.done, phase.failed), (1, 1, 1));
    }

    #[test]
    fn an_early_probe_that_fails_lengthens_nothing_and_one_that_succeeds_takes_a_doubling_back() {
        let policy = Policy::default();
        let open = Phase::START.open(2);
        assert_eq!((open.openings, open.failed), (3, 0));
        let again = open.probe_early().settle(true, &policy);
        assert_eq!((again.state, again.openings), (State::Open, 3));
        assert_eq!(again.failed, 1, "it was no call that opened it");
        let closed = again.probe_early().settle(false, &policy);
        assert_eq!((closed.state, closed.openings), (State::Closed, 2));
        assert_eq!(again.probe().settle(true, &policy).openings, 4);
    }

    #[test]
    fn a_ramp_comes_between_only_if_there_is_one() {
        let phase = Phase::START.open(0).probe();
        let ramping = Policy::default().ramp_up(std::time::Duration::from_secs(1));
        assert_eq!(phase.settle(false, &ramping).state, State::Ramping);
        assert_eq!(phase.settle(false, &Policy::default()).state, State::Closed);
    }
}
