//! A breaker as its gate knows it: the circuit with a name, a clock and listeners.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tower_mesh_core::{
    Availability, GateHandle, Instant, Judge, Outcome, Shut, Standing, Ticket, frame,
};

use crate::{
    circuit::Circuit,
    phase::State,
    policy::nanos,
    settings::Settings,
    snapshot::Snapshot,
    transition::{Change, Reason},
};

pub(crate) struct BreakerJudge {
    name: Arc<str>,
    circuit: Circuit,
    opened: AtomicU64,
    rejected: AtomicU64,
    /// When it was last asked for, or asked by a service.
    used: AtomicU64,
}

impl BreakerJudge {
    /// Judges at `gate`, or for a service that asks it directly.
    pub(crate) fn new(name: Arc<str>, settings: &Arc<Settings>, gate: Option<GateHandle>) -> Self {
        let now = settings.clock.now();
        Self {
            circuit: Circuit::new(Arc::clone(settings), gate, now),
            name,
            opened: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            used: AtomicU64::new(now.as_nanos()),
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        self.circuit.settings()
    }

    pub(crate) fn state(&self) -> State {
        self.circuit.phase().state
    }

    /// The time of this poll.
    pub(crate) fn now(&self) -> Instant {
        frame::now(&self.settings().clock)
    }

    /// Notes that somebody wants it, to the second: cores that share a breaker should not fight over this word, too.
    #[inline]
    pub(crate) fn touch(&self, now: Instant) {
        const SECOND: u64 = 1_000_000_000;
        let last = self.last_use().as_nanos();
        if now.as_nanos().saturating_sub(last) >= SECOND {
            self.used.store(now.as_nanos(), Ordering::Relaxed);
        }
    }

    /// When somebody last wanted it.
    pub(crate) fn last_use(&self) -> Instant {
        Instant::from_nanos(self.used.load(Ordering::Relaxed))
    }

    pub(crate) fn force(&self, state: State, reason: Reason) {
        self.tell(
            self.circuit
                .force(state, self.settings().clock.now(), reason),
        );
    }

    pub(crate) fn release_force(&self) {
        self.tell(self.circuit.release_force(self.settings().clock.now()));
    }

    pub(crate) fn reopen(&self, rest: Duration, openings: u8) {
        let now = self.settings().clock.now();
        self.tell(self.circuit.reopen(rest, openings, now));
    }

    fn tell(&self, change: Option<Change>) {
        let Some(change) = change else {
            return;
        };
        if change.to == State::Open {
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
        self.settings().events.tell(&self.name, change);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let now = self.settings().clock.now();
        // Counts and times carry their epoch, so that all of it is of the phase that was read.
        let phase = self.circuit.phase();
        Snapshot {
            name: Arc::clone(&self.name),
            state: phase.state,
            taken: now,
            since: self.circuit.since(phase).unwrap_or(now),
            open_until: self.circuit.open_until(phase),
            failures: self.circuit.failures(phase, now),
            slow_calls: self.circuit.slow(phase, now),
            consecutive_failures: self.circuit.run(phase),
            probes_out: phase.out.into(),
            openings: phase.openings,
            opened: self.opened.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
        }
    }

    #[cold]
    fn admit_limited(&self, now: Instant) -> Result<Ticket, Shut> {
        let (admitted, change) = self.circuit.admit_limited(now);
        self.tell(change);
        if admitted.is_err() {
            self.rejected.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    #[cold]
    fn report_success(&self, ticket: Ticket, nanos: u64, now: Instant) {
        self.report_nanos(ticket, Outcome::success(), nanos, now);
    }

    fn report_nanos(&self, ticket: Ticket, outcome: Outcome, nanos: u64, now: Instant) {
        self.tell(self.circuit.report(ticket, outcome, nanos, now));
    }
}

impl Judge for BreakerJudge {
    fn standing(&self, now: Instant) -> Standing {
        self.circuit.standing(now)
    }

    fn admit(&self, now: Instant) -> Result<Ticket, Shut> {
        match self.circuit.admit_free() {
            Some(ticket) => Ok(ticket),
            None => self.admit_limited(now),
        }
    }

    fn report(&self, ticket: Ticket, outcome: Outcome, latency: Duration, now: Instant) {
        self.report_nanos(ticket, outcome, nanos(latency), now);
    }

    fn succeed(&self, ticket: Ticket, nanos: u64, now: Instant) {
        if !self.circuit.count_success(ticket, now) {
            self.report_success(ticket, nanos, now);
        }
    }

    fn release(&self, ticket: Ticket) {
        self.circuit.release(ticket);
    }

    fn availability(&self) -> Availability {
        self.state().availability()
    }

    fn standing_in_panic(&self, now: Instant) -> Standing {
        self.circuit.standing_in_panic(now)
    }

    fn is_confirmed(&self) -> bool {
        self.circuit.phase().is_confirmed()
    }

    // Who is refused here has been refused, and counted, by `admit`.
    fn admit_in_panic(&self, now: Instant) -> Result<Ticket, Shut> {
        let (admitted, change) = self.circuit.admit_in_panic(now);
        self.tell(change);
        admitted
    }
}

impl fmt::Debug for BreakerJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("name", &self.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
