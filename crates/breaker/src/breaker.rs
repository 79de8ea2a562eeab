//! A breaker as its owner holds it, and as its gate knows it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tower_mesh_core::{
    Attempt, Clock, Endpoint, GateHandle, Instant, Judge, JudgeKind, Outcome, Rng, Sampling, Shut,
    Standing, Ticket, Vitals, frame,
};

use crate::{
    circuit::Circuit,
    error::Open,
    layer::BreakerLayer,
    phase::State,
    policy::Policy,
    snapshot::Snapshot,
    transition::{Change, Events, Reason},
};

/// What all breakers of one layer or registry share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) policy: Arc<Policy>,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) events: Arc<Events>,
}

/// A handle of one breaker: shows it, and takes it out of its own hands.
///
/// # Clone
///
/// A clone is the same breaker.
#[derive(Clone)]
pub struct Breaker(Arc<Shared>);

struct Shared {
    judge: Arc<BreakerJudge>,
    /// Whose gate the judge has: an endpoint's, or some of its own.
    vitals: Arc<Vitals>,
}

impl Breaker {
    /// A breaker with a gate of its own.
    pub(crate) fn detached(name: Arc<str>, settings: &Arc<Settings>) -> Self {
        let vitals = Vitals::detached();
        let mut judge = None;
        vitals.attach(JudgeKind::Breaker, |gate| {
            let made = Arc::new(BreakerJudge::new(name, Arc::clone(settings), gate));
            judge = Some(Arc::clone(&made));
            made
        });
        let judge = judge.expect("a new gate has no judge, so it was made");
        Self(Arc::new(Shared { judge, vitals }))
    }

    /// Has a breaker judge the calls of `endpoint`, unless one does already.
    pub(crate) fn attach(endpoint: &Endpoint, settings: &Arc<Settings>) {
        endpoint.vitals().attach(JudgeKind::Breaker, |gate| {
            let name = endpoint.id().into();
            Arc::new(BreakerJudge::new(name, Arc::clone(settings), gate))
        });
    }

    /// The breaker that judges the calls of `endpoint`.
    pub(crate) fn of(endpoint: &Endpoint) -> Option<Self> {
        let vitals = endpoint.vitals();
        let judge = Arc::clone(vitals.gate().judge(JudgeKind::Breaker)?);
        let judge: Arc<dyn std::any::Any + Send + Sync> = judge;
        Some(Self(Arc::new(Shared {
            judge: judge.downcast().ok()?,
            vitals: Arc::clone(vitals),
        })))
    }

    /// Its name: the id of its endpoint, the key in its registry, or what its layer was named.
    pub fn name(&self) -> &Arc<str> {
        &self.0.judge.name
    }

    /// The state it is in.
    pub fn state(&self) -> State {
        self.0.judge.circuit.phase().state
    }

    /// What it knows, of one moment.
    pub fn snapshot(&self) -> Snapshot {
        self.0.judge.snapshot()
    }

    /// Refuses every call until somebody lets go of it.
    pub fn force_open(&self) {
        self.force(State::ForcedOpen, Reason::Forced);
    }

    /// Admits every call until somebody lets go of it.
    pub fn force_closed(&self) {
        self.force(State::ForcedClosed, Reason::Forced);
    }

    /// Lets it judge again, from closed and with nothing counted; changes nothing if it is not forced.
    pub fn release_force(&self) {
        let judge = &self.0.judge;
        let change = judge.circuit.release_force(judge.settings.clock.now());
        judge.tell(change);
    }

    /// Begins anew: closed, not forced, nothing counted, its open time as short as at first.
    pub fn reset(&self) {
        self.force(State::Closed, Reason::Reset);
    }

    fn force(&self, state: State, reason: Reason) {
        let judge = &self.0.judge;
        let now = judge.settings.clock.now();
        judge.tell(Some(judge.circuit.force(state, now, reason)));
    }

    /// A layer whose services ask this breaker.
    ///
    /// A breaker of an endpoint should be left to its balancer: asked by both, a probe takes two places.
    pub fn layer(&self) -> BreakerLayer {
        BreakerLayer::of(self.clone(), Arc::clone(&self.0.judge.settings))
    }

    /// Admits a call: what a service with this breaker does before it makes one.
    pub(crate) fn admit(&self) -> Result<Attempt, Open> {
        let Shared { judge, vitals } = &*self.0;
        let clock = &judge.settings.clock;
        vitals
            .attempt(clock, Sampling::Mean)
            .map_err(|shut| Open::new(&judge.name, self.state(), shut, frame::now(clock)))
    }

    /// Whether nobody else holds it and no call is under way, so that nobody would miss it.
    pub(crate) fn is_unheld(&self) -> bool {
        Arc::strong_count(&self.0) == 1 && Arc::strong_count(&self.0.vitals) == 1
    }

    /// When it last heard of a call.
    pub(crate) fn last_call(&self) -> Option<Instant> {
        self.0.vitals.load().updated()
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("name", self.name())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// The breaker as its gate knows it.
pub(crate) struct BreakerJudge {
    name: Arc<str>,
    settings: Arc<Settings>,
    circuit: Circuit,
    opened: AtomicU64,
    rejected: AtomicU64,
}

impl BreakerJudge {
    fn new(name: Arc<str>, settings: Arc<Settings>, gate: GateHandle) -> Self {
        let (policy, rng) = (Arc::clone(&settings.policy), settings.rng.clone());
        Self {
            circuit: Circuit::new(policy, rng, gate, settings.clock.now()),
            name,
            settings,
            opened: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        }
    }

    fn tell(&self, change: Option<Change>) {
        if let Some(change) = change {
            if change.to == State::Open {
                self.opened.fetch_add(1, Ordering::Relaxed);
            }
            self.settings.events.tell(&self.name, change);
        }
    }

    fn snapshot(&self) -> Snapshot {
        let now = self.settings.clock.now();
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
            opened: self.opened.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
        }
    }
}

impl Judge for BreakerJudge {
    fn standing(&self, now: Instant) -> Standing {
        self.circuit.standing(now)
    }

    fn admit(&self, now: Instant) -> Result<Ticket, Shut> {
        let (admitted, change) = self.circuit.admit(now);
        self.tell(change);
        if admitted.is_err() {
            self.rejected.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    fn report(&self, ticket: Ticket, outcome: Outcome, latency: Duration, now: Instant) {
        self.tell(self.circuit.report(ticket, outcome, latency, now));
    }

    fn release(&self, ticket: Ticket) {
        self.circuit.release(ticket);
    }
}

impl fmt::Debug for BreakerJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerJudge")
            .field("name", &self.name)
            .field("state", &self.circuit.phase().state)
            .finish_non_exhaustive()
    }
}
