//! The breaker itself: a phase in one atomic word, the windows that end it, and the gate that shows it.
//!
//! # The order of a transition
//!
//! 1. The phase, by compare-exchange. Who wins it has begun an epoch; who loses has done nothing and looks again.
//! 2. The times of the epoch ([`Dated`]). Until they are there, the phase counts as not over.
//! 3. The gate's word, with the epoch. Winners of successive epochs may come here in any order: the gate ignores what
//!    is older than what it has, so it ends up saying what the last of them said.
//!
//! Between 1 and 3 the gate says what was before. While the breaker opens, calls still go through it that might as well
//! have been a moment earlier; their tickets are of the old epoch, so their verdicts move nothing. While it closes, the
//! gate still asks, and the phase admits. The other order would be wrong: who had raised the gate's flag and then lost
//! the compare-exchange would leave a closed breaker with a gate that is shut.
//!
//! # The path of a healthy call
//!
//! Admission is one load, the gate's or, without one, the phase's. The report never reads the phase: it counts under
//! its ticket's epoch, where it disturbs no other ([`epoch`](crate::epoch)), and only a count that calls for a
//! transition looks whether the ticket's epoch is still the phase's.

use std::{sync::Arc, time::Duration};

use tower_mesh_core::{
    GateHandle, Instant, JudgeKind, Outcome, Shut, Standing, Ticket,
    sync::{AtomicU64, Ordering},
};

use crate::{
    epoch::Dated,
    phase::{Phase, State},
    run::Run,
    settings::Settings,
    transition::{Change, Reason},
    window::{Counted, Rule, Tally},
};

#[derive(Debug)]
pub(crate) struct Circuit {
    settings: Arc<Settings>,
    gate: Option<GateHandle>,
    phase: AtomicU64,
    /// When the state began.
    since: Dated,
    /// Open: until when. Half-open: when the lease of the newest probe ends.
    until: Dated,
    /// Open or half-open: when calls have opened it, whatever became of probes since.
    tripped: Dated,
    run: Run,
    failures: Option<Counted>,
    /// Boxed, as few have one and every endpoint would have room for it.
    slow: Option<Box<Counted>>,
    /// From how many nanoseconds on a call is slow.
    slow_from: u64,
}

/// In a panic the second probe is due after this part of the open time, if the first has failed at once.
const SOONEST: u32 = 20;

/// What a call finds that asks for admission.
enum Way {
    /// It goes through.
    Free,
    /// It is refused, until this time if that is known.
    Shut(Option<Instant>),
    /// It may become a probe, if it brings this phase about, for this reason if that is a transition.
    Probe(Phase, Reason),
    /// It goes through with this chance.
    Chance(f64),
    /// It goes through, and the ramp is over if it brings this phase about.
    Over(Phase),
}

impl Circuit {
    pub(crate) fn new(settings: Arc<Settings>, gate: Option<GateHandle>, now: Instant) -> Self {
        let counted = settings.policy.load();
        Self {
            gate,
            phase: AtomicU64::new(Phase::START.pack()),
            since: Dated::new(Phase::START.epoch, now),
            until: Dated::new(Phase::START.epoch, Instant::NEVER),
            tripped: Dated::new(Phase::START.epoch, now),
            run: Run::default(),
            failures: counted.failures(),
            slow: counted.slow().map(Box::new),
            slow_from: counted.slow_from(),
            settings: Arc::clone(&settings),
        }
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    pub(crate) fn phase(&self) -> Phase {
        Phase::unpack(self.phase.load(Ordering::Acquire))
    }

    /// How open it would leave the gate.
    pub(crate) fn standing(&self, now: Instant) -> Standing {
        stands(self.way(self.phase(), now))
    }

    /// How open it would leave the gate in a panic.
    pub(crate) fn standing_in_panic(&self, now: Instant) -> Standing {
        stands(self.way_in_panic(self.phase(), now))
    }

    /// Admits a call if every call is admitted.
    pub(crate) fn admit_free(&self) -> Option<Ticket> {
        let epoch = Phase::free(self.phase.load(Ordering::Acquire))?;
        Some(Ticket::new(epoch, false))
    }

    /// Admits a call if it may be one of those that are, and says what that has changed.
    pub(crate) fn admit_limited(&self, now: Instant) -> (Result<Ticket, Shut>, Option<Change>) {
        self.admit_by(now, Self::way)
    }

    /// The same in a panic: an open breaker may give the first place before its time is up.
    pub(crate) fn admit_in_panic(&self, now: Instant) -> (Result<Ticket, Shut>, Option<Change>) {
        self.admit_by(now, Self::way_in_panic)
    }

    #[inline(always)]
    fn admit_by(
        &self,
        now: Instant,
        way: impl Fn(&Self, Phase, Instant) -> Way,
    ) -> (Result<Ticket, Shut>, Option<Change>) {
        loop {
            let phase = self.phase();
            let admitted = Ok(Ticket::new(phase.epoch, false));
            match way(self, phase, now) {
                Way::Free => return (admitted, None),
                Way::Shut(until) => return (Err(shut(until)), None),
                Way::Chance(share) if self.settings.rng.unit() < share => return (admitted, None),
                Way::Chance(_) => return (Err(shut(None)), None),
                Way::Over(next) => {
                    if let Some(change) = self.step(phase, next, now, Reason::RampedUp) {
                        return (Ok(Ticket::new(next.epoch, false)), Some(change));
                    }
                }
                Way::Probe(next, _) if next.epoch == phase.epoch => {
                    // The lease before the place: else the places of a moment ago might seem to have run out.
                    self.until
                        .set(phase.epoch, now + self.settings.policy.load().lease());
                    if self.swap(phase, next) {
                        return (Ok(Ticket::new(next.epoch, true)), None);
                    }
                }
                Way::Probe(next, reason) => {
                    if let Some(change) = self.step(phase, next, now, reason) {
                        return (Ok(Ticket::new(next.epoch, true)), Some(change));
                    }
                }
            }
        }
    }

    fn way(&self, phase: Phase, now: Instant) -> Way {
        let until = || self.until.get(phase.epoch);
        let is_over = || until().is_some_and(|until| now >= until);
        let probe = |next| Way::Probe(next, Reason::OpenTimeOver);
        match phase.state {
            State::Closed | State::ForcedClosed => Way::Free,
            State::ForcedOpen => Way::Shut(None),
            State::Open if is_over() => probe(phase.probe()),
            State::Open => Way::Shut(until()),
            State::HalfOpen => match phase.another_probe(&self.settings.policy.load()) {
                Some(next) => probe(next),
                None if is_over() => probe(phase.renew()),
                // When a probe comes back is not known; the end of its lease would scare callers away for nothing.
                None => Way::Shut(None),
            },
            State::Ramping => match self
                .settings
                .policy
                .load()
                .ramp_share(self.time_in(phase, now))
            {
                Some(share) => Way::Chance(share),
                None => Way::Over(phase.enter(State::Closed)),
            },
        }
    }

    /// As [`way`](Self::way), when so many endpoints are out that it may well be the breaker that is wrong.
    ///
    /// What calls have opened is probed at once, so an error of judgement costs one call. After a probe that has failed the
    /// next is due when it has been out for as long again, at most the open time without its doublings: who was wrong for
    /// a moment is wrong for twice as long at worst, and the dead get a trickle, however many call.
    fn way_in_panic(&self, phase: Phase, now: Instant) -> Way {
        if phase.state != State::Open {
            return self.way(phase, now);
        }
        match self.due_in_panic(phase) {
            Some(due) if now >= due => Way::Probe(phase.probe_early(), Reason::Panic),
            due => Way::Shut(due),
        }
    }

    fn due_in_panic(&self, phase: Phase) -> Option<Instant> {
        let (since, until) = (self.since(phase)?, self.until.get(phase.epoch)?);
        if phase.failed == 0 {
            return Some(since);
        }
        let most = self
            .settings
            .policy
            .load()
            .undoubled(phase.openings, until.since(since));
        let out_for = since.since(self.tripped.get(phase.epoch)?);
        // Of two times that are told early the difference may be late.
        let out_for = out_for.saturating_sub(Dated::EARLY);
        Some(since + out_for.clamp(most / SOONEST, most))
    }

    /// Counts a success where there is no more to do, as after nearly every call: it is no probe, and no rule asks how
    /// long it took. `false` leaves it to [`report`](Self::report).
    #[inline(always)] // Called, it would save and restore registers for longer than it counts.
    pub(crate) fn count_success(&self, ticket: Ticket, now: Instant) -> bool {
        if ticket.is_probe() || self.slow.is_some() {
            return false;
        }
        self.run.end(ticket.epoch());
        if let Some(rule) = &self.failures {
            rule.record(false, ticket.epoch(), now);
        }
        true
    }

    /// A call has ended; says what that has changed.
    pub(crate) fn report(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        latency: u64,
        now: Instant,
    ) -> Option<Change> {
        let (failed, slow) = (outcome.is_failure(), latency >= self.slow_from);
        if ticket.is_probe() {
            return self.settle(ticket, failed || slow, now);
        }
        let epoch = ticket.epoch();
        // Every rule counts every call, so all do before the first may end the epoch.
        let run = self.run.record(outcome, epoch);
        record(self.failures.as_ref(), failed, epoch, now);
        record(self.slow.as_deref(), slow, epoch, now);
        // Only a call that counts against it can open it.
        if failed || slow {
            let reason = self.reason(run, failed, slow, epoch, now)?;
            self.trip(epoch, now, reason)
        } else {
            None
        }
    }

    /// Why a call that counts against it should open it.
    #[cold]
    fn reason(
        &self,
        run: u32,
        failed: bool,
        slow: bool,
        epoch: u32,
        now: Instant,
    ) -> Option<Reason> {
        let policy = self.settings.policy.load();
        let breaks = |counted: Option<&Counted>, rule: Option<Rule>| {
            (counted.zip(rule)).is_some_and(|(calls, rule)| calls.breaks(rule, epoch, now))
        };
        if policy.too_many_in_a_row(run) {
            Some(Reason::ConsecutiveFailures)
        } else if failed && breaks(self.failures.as_ref(), policy.failure_rule()) {
            Some(Reason::FailureRate)
        } else if slow && breaks(self.slow.as_deref(), policy.slow_rule()) {
            Some(Reason::SlowCallRate)
        } else {
            None
        }
    }

    /// Opens, if the verdicts that call for it were given in the epoch that still is.
    #[cold]
    fn trip(&self, epoch: u32, now: Instant, reason: Reason) -> Option<Change> {
        self.advance(now, |phase| {
            let remembered = match phase.state {
                _ if phase.epoch != epoch => return None,
                State::Closed => {
                    let closed = self.time_in(phase, now);
                    self.settings
                        .policy
                        .load()
                        .remembered(phase.openings, closed)
                }
                State::Ramping => phase.openings,
                _ => return None,
            };
            Some((phase.open(remembered), reason))
        })
    }

    /// A probe has come back; it counts if its epoch still is.
    #[cold]
    fn settle(&self, ticket: Ticket, failed: bool, now: Instant) -> Option<Change> {
        self.advance(now, |phase| {
            let next = phase
                .of_probe(ticket)?
                .settle(failed, &self.settings.policy.load());
            let reason = match next.state {
                State::Open => Reason::ProbesFailed,
                _ => Reason::ProbesSucceeded,
            };
            Some((next, reason))
        })
    }

    /// A probe was abandoned: its place is free, if its epoch still is.
    #[cold]
    pub(crate) fn release(&self, ticket: Ticket) {
        if !ticket.is_probe() {
            return;
        }
        while let Some(phase) = self.phase().of_probe(ticket) {
            if self.swap(phase, phase.abandon()) {
                return;
            }
        }
    }

    /// Brings it to `state` whatever it is in, with nothing remembered.
    pub(crate) fn force(&self, state: State, now: Instant, reason: Reason) -> Option<Change> {
        self.advance(now, |phase| {
            let next = Phase {
                openings: 0,
                ..phase.enter(state)
            };
            Some((next, reason))
        })
    }

    /// Opens it for what is left of an open time that began elsewhere, the `openings`th in a row; unless it is forced.
    pub(crate) fn reopen(&self, rest: Duration, openings: u8, now: Instant) -> Option<Change> {
        loop {
            let from = self.phase();
            let to = from.open(openings.saturating_sub(1));
            if from.state.is_forced() {
                return None;
            }
            if self.swap(from, to) {
                self.begin(from, to, now + rest, now);
                return Some(Change::new(from, to, now, Reason::Restored));
            }
        }
    }

    /// Lets go of it where it was forced.
    pub(crate) fn release_force(&self, now: Instant) -> Option<Change> {
        self.advance(now, |phase| {
            let next = phase.enter(State::Closed);
            phase.state.is_forced().then_some((next, Reason::Released))
        })
    }

    /// Takes the step that `next` makes of the phase; of the phase as it is then, when another step came first.
    fn advance(
        &self,
        now: Instant,
        next: impl Fn(Phase) -> Option<(Phase, Reason)>,
    ) -> Option<Change> {
        loop {
            let phase = self.phase();
            let (next, reason) = next(phase)?;
            let change = self.step(phase, next, now, reason);
            if change.is_some() {
                return change;
            }
        }
    }

    /// A step of the phase, and if it begins an epoch all three of the transition; `None` if another came first.
    #[cold]
    fn step(&self, from: Phase, to: Phase, now: Instant, reason: Reason) -> Option<Change> {
        if !self.swap(from, to) {
            return None;
        }
        if from.epoch != to.epoch {
            self.begin(from, to, self.ends(to, now), now);
        }
        Some(Change::new(from, to, now, reason))
    }

    /// When the state of `phase`, that begins now, is over.
    fn ends(&self, phase: Phase, now: Instant) -> Instant {
        let policy = self.settings.policy.load();
        match phase.state {
            State::Open => now + policy.open_time(phase.openings, self.settings.rng.unit()),
            State::HalfOpen => now + policy.lease(),
            _ => Instant::NEVER,
        }
    }

    /// The times of an epoch that has begun, and its gate.
    fn begin(&self, from: Phase, to: Phase, until: Instant, now: Instant) {
        // A renewed lease is an epoch of its own in a state that goes on.
        let is_new = from.state != to.state;
        let since = if is_new { None } else { self.since(from) };
        self.since.set(to.epoch, since.unwrap_or(now));
        self.until.set(to.epoch, until);
        let tripped = match from.state {
            State::Open | State::HalfOpen => self.tripped.get(from.epoch),
            _ => None,
        };
        self.tripped.set(to.epoch, tripped.unwrap_or(now));
        if let Some(gate) = &self.gate {
            gate.set_epoch(to.epoch, to.state.limits());
        }
    }

    fn swap(&self, from: Phase, to: Phase) -> bool {
        self.phase
            .compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn time_in(&self, phase: Phase, now: Instant) -> Duration {
        self.since(phase)
            .map_or(Duration::ZERO, |since| now.since(since))
    }

    /// When `phase` began.
    pub(crate) fn since(&self, phase: Phase) -> Option<Instant> {
        self.since.get(phase.epoch)
    }

    /// Until when it stays open, if it is.
    pub(crate) fn open_until(&self, phase: Phase) -> Option<Instant> {
        let is_open = phase.state == State::Open;
        is_open.then(|| self.until.get(phase.epoch)).flatten()
    }

    pub(crate) fn run(&self, phase: Phase) -> u32 {
        self.run.length(phase.epoch)
    }

    pub(crate) fn failures(&self, phase: Phase, now: Instant) -> Option<Tally> {
        let rule = self.failures.as_ref()?;
        Some(rule.tally(phase.epoch, now))
    }

    pub(crate) fn slow(&self, phase: Phase, now: Instant) -> Option<Tally> {
        let rule = self.slow.as_ref()?;
        Some(rule.tally(phase.epoch, now))
    }
}

fn record(counted: Option<&Counted>, against: bool, epoch: u32, now: Instant) {
    if let Some(calls) = counted {
        calls.record(against, epoch, now);
    }
}

fn stands(way: Way) -> Standing {
    match way {
        Way::Free | Way::Over(_) => Standing::Open,
        Way::Probe(..) | Way::Chance(_) => Standing::Limited,
        Way::Shut(until) => Standing::Shut(shut(until)),
    }
}

fn shut(until: Option<Instant>) -> Shut {
    Shut::new(JudgeKind::Breaker, until)
}
