//! The state of an endpoint that calls leave behind, and the guard that leaves it.

use std::{fmt, sync::Arc};

use crate::{
    frame,
    gate::{Gate, GateHandle, Judge, JudgeKind, Shut, Ticket},
    load::{Load, Sampling},
    outcome::{Class, Finish, Outcome},
    time::{Clock, Instant},
};

/// What is known of an endpoint from calling it: its [`Gate`] and its [`Load`].
///
/// It belongs to the endpoint's identity, not to a layer: every balancer over the same endpoint sees the same.
#[derive(Debug)]
pub struct Vitals {
    key: u32,
    gate: Gate,
    load: Load,
}

impl Vitals {
    pub(crate) fn new(key: u32) -> Self {
        Self {
            key,
            gate: Gate::new(),
            load: Load::new(),
        }
    }

    /// The state of something that is no endpoint: a service with a breaker of its own.
    pub fn detached() -> Arc<Self> {
        Arc::new(Self::new(0))
    }

    /// A short number for the endpoint's identity, never zero for an endpoint; see [`frame::mark_tried`].
    pub fn key(&self) -> u32 {
        self.key
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
    pub fn attach(
        self: &Arc<Self>,
        kind: JudgeKind,
        make: impl FnOnce(GateHandle) -> Arc<dyn Judge>,
    ) -> &Arc<dyn Judge> {
        self.gate
            .slot(kind)
            .get_or_init(|| make(GateHandle::new(self, kind)))
    }

    /// Admits one attempt.
    ///
    /// # Errors
    ///
    /// [`Shut`] says which judge keeps the gate shut, and until when.
    pub fn attempt(self: &Arc<Self>, clock: &Clock, sampling: Sampling) -> Result<Attempt, Shut> {
        let start = frame::now(clock);
        let ticket = self.gate.admit(start)?;
        self.load.begin();
        Ok(Attempt {
            vitals: Arc::clone(self),
            clock: clock.clone(),
            start,
            ticket,
            sampling,
            finished: false,
        })
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
    clock: Clock,
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

    /// Whether it is a probe: the gate was not simply open.
    pub fn is_probe(&self) -> bool {
        self.ticket.is_probe()
    }
}

impl Finish for Attempt {
    fn finish(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let Vitals { gate, load, .. } = &*self.vitals;
        if outcome.class() == Class::Neutral {
            gate.release(self.ticket);
            return;
        }
        let now = frame::now(&self.clock);
        let latency = now.since(self.start);
        load.record(outcome, latency, now, self.sampling);
        gate.report(self.ticket, outcome, latency, now);
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
