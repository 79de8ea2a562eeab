//! The state of an endpoint that calls leave behind, and the guard that leaves it.

use std::{fmt, mem, sync::Arc};

use crate::{
    endpoint::{Endpoint, Spec},
    frame,
    gate::{Gate, GateHandle, Judge, JudgeKind, Shut, Ticket},
    load::{Load, Sampling},
    outcome::{Class, Finish, Outcome},
    report::Report,
    time::{Clock, Instant, Source},
};

/// What is known of an endpoint from calling it: its [`Gate`] and its [`Load`].
///
/// It belongs to the endpoint's identity, not to a layer: every balancer over the same endpoint sees the same.
#[derive(Debug)]
pub struct Vitals {
    key: u32,
    /// How the endpoint was first described; nothing if this is no endpoint's.
    spec: Option<Arc<Spec>>,
    gate: Gate,
    load: Load,
}

impl Vitals {
    pub(crate) fn new(key: u32, spec: Option<Arc<Spec>>) -> Self {
        Self {
            key,
            spec,
            gate: Gate::new(),
            load: Load::new(),
        }
    }

    /// The state of something that is no endpoint: a service with a breaker of its own.
    pub fn detached() -> Arc<Self> {
        Arc::new(Self::new(0, None))
    }

    /// A short number for the endpoint's identity, never zero for an endpoint; see [`frame::mark_tried`].
    pub fn key(&self) -> u32 {
        self.key
    }

    /// The endpoint whose state this is, also when no set holds it any more; unless it is [`detached`](Self::detached).
    ///
    /// Its id and address are right; the rest of its description is that of its first appearance.
    pub fn endpoint(self: &Arc<Self>) -> Option<Endpoint> {
        let spec = Arc::clone(self.spec.as_ref()?);
        Some(Endpoint::from_parts(spec, Arc::clone(self)))
    }

    /// Whether it may be called.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// How busy, how fast and how successful it is.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// Attaches a judge to the gate, or gives the one of this kind that is there.
    ///
    /// `make` gets the handle through which the judge moves the gate.
    ///
    /// # Panics
    ///
    /// For [`JudgeKind::Drain`], which is a flag without a judge.
    pub fn attach(
        self: &Arc<Self>,
        kind: JudgeKind,
        make: impl FnOnce(GateHandle) -> Arc<dyn Judge>,
    ) -> &Arc<dyn Judge> {
        self.gate.attach(kind, || make(GateHandle::new(self, kind)))
    }

    /// Admits one attempt.
    ///
    /// # Errors
    ///
    /// [`Shut`] says which judge keeps the gate shut, and until when.
    pub fn attempt(self: &Arc<Self>, clock: &Clock, sampling: Sampling) -> Result<Attempt, Shut> {
        self.attempt_at(frame::now(clock), clock, sampling)
    }

    /// Admits one attempt that begins at `start`: for callers who have read `clock` already.
    ///
    /// # Errors
    ///
    /// As [`attempt`](Self::attempt).
    pub fn attempt_at(
        self: &Arc<Self>,
        start: Instant,
        clock: &Clock,
        sampling: Sampling,
    ) -> Result<Attempt, Shut> {
        let ticket = self.gate.admit(start)?;
        Ok(self.begin(ticket, start, clock, sampling))
    }

    /// Admits one attempt in a panic, see [`Gate::admit_in_panic`].
    ///
    /// # Errors
    ///
    /// As [`attempt`](Self::attempt).
    #[cold]
    pub fn attempt_in_panic(
        self: &Arc<Self>,
        start: Instant,
        clock: &Clock,
        sampling: Sampling,
    ) -> Result<Attempt, Shut> {
        let ticket = self.gate.admit_in_panic(start)?;
        Ok(self.begin(ticket, start, clock, sampling))
    }

    #[inline(always)]
    fn begin(
        self: &Arc<Self>,
        ticket: Ticket,
        start: Instant,
        clock: &Clock,
        sampling: Sampling,
    ) -> Attempt {
        self.load.begin();
        Attempt {
            vitals: Arc::clone(self),
            source: clock.source().clone(),
            start,
            ticket,
            sampling,
            finished: false,
        }
    }
}

/// One attempt at an endpoint, admitted by its gate: counted as in flight until it is dropped.
///
/// Its outcome goes to the gate's judges and to the load, once. Dropped without an outcome it is abandoned: it says
/// nothing of the endpoint and gives a probe's place back, unless it is dropped because the time is up
/// ([`frame::timing_out`]), which is a timeout.
#[must_use = "dropping it ends the attempt"]
pub struct Attempt {
    vitals: Arc<Vitals>,
    source: Source,
    start: Instant,
    ticket: Ticket,
    sampling: Sampling,
    finished: bool,
}

impl Attempt {
    /// When it began.
    pub fn started(&self) -> Instant {
        self.start
    }

    /// The state of the endpoint that it goes to.
    pub fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    /// Notes that the caller is about to go away without any answer: no failure, but until the endpoint answers someone
    /// else, it is taken to be still at work on this ([`Load::unanswered`]).
    ///
    /// For whoever drops an attempt before its response has begun.
    pub fn give_up(&self) {
        if !self.finished && !frame::is_timing_out() {
            self.vitals.load.give_up(frame::now_by(&self.source));
        }
    }

    /// Notes what the server said of its load along with its answer.
    pub fn report(&self, report: Report) {
        let now = frame::now_by(&self.source);
        self.vitals.load.report(report, now);
    }

    /// Whether it is a probe: the gate was not simply open.
    pub fn is_probe(&self) -> bool {
        self.ticket.is_probe()
    }
}

impl Finish for Attempt {
    #[inline]
    fn finish(&mut self, outcome: Outcome) {
        if mem::replace(&mut self.finished, true) {
            return;
        }
        // Nearly every attempt ends so, and an outcome costs each who hears of it a copy.
        if outcome.is_success() {
            self.succeed();
        } else {
            self.fail(outcome);
        }
    }
}

impl Attempt {
    #[inline(never)]
    fn succeed(&self) {
        let (now, latency_ns) = self.ends();
        let Vitals { gate, load, .. } = &*self.vitals;
        load.record(true, latency_ns, now, self.sampling);
        gate.report_success(self.ticket, latency_ns, now);
    }

    #[cold]
    fn fail(&self, outcome: Outcome) {
        let Vitals { gate, load, .. } = &*self.vitals;
        if outcome.class() == Class::Neutral {
            gate.release(self.ticket);
            return;
        }
        let (now, latency_ns) = self.ends();
        load.record(false, latency_ns, now, self.sampling);
        gate.report_failure(self.ticket, outcome, latency_ns, now);
    }

    /// When, and after how many nanoseconds.
    fn ends(&self) -> (Instant, u64) {
        let now = frame::now_by(&self.source);
        (now, now.as_nanos().saturating_sub(self.start.as_nanos()))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.finished {
            self.finish(if frame::is_timing_out() {
                Outcome::timeout()
            } else {
                Outcome::neutral()
            });
        }
        self.vitals.load.end();
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("start", &self.start)
            .field("ticket", &self.ticket)
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_without_an_answer_is_load_and_no_failure() {
        let (clock, _) = Clock::manual();
        let vitals = Vitals::detached();
        let unanswered = || vitals.load().unanswered(clock.now());
        let attempt = || vitals.attempt(&clock, Sampling::Mean).unwrap();
        attempt().give_up();
        attempt().give_up();
        assert_eq!((unanswered(), vitals.load().failures()), (2.0, 0));

        let mut answered = attempt();
        answered.finish(Outcome::success());
        answered.give_up();
        drop(answered);
        assert_eq!(unanswered(), 0.0, "an answer clears what others gave up");

        frame::timing_out(|| attempt().give_up());
        assert_eq!(unanswered(), 0.0, "a timeout is a verdict of its own");
        assert_eq!(
            (vitals.load().failures(), vitals.load().in_flight()),
            (1, 0)
        );
    }
}
