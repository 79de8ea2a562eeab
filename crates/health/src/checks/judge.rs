//! What checks know of one endpoint.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use tower_mesh_core::{
    Endpoint, GateHandle, Instant, Judge, JudgeKind, Outcome, Shut, Standing, Ticket,
    sync::{Mutex, lock},
};

use crate::{
    checks::{
        checker::Shared,
        status::EndpointHealth,
        verdict::{Answer, HealthState, Thresholds, Verdict},
    },
    probe::Failure,
};

/// Keeps calls from an endpoint that checks have found unhealthy. It hears of no call.
pub(crate) struct HealthJudge {
    gate: GateHandle,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    /// Whose checks they are.
    owner: Weak<Shared>,
    verdict: Verdict,
    answered: Option<Instant>,
    took: Duration,
    error: Option<Arc<str>>,
    checks: u64,
    failures: u64,
}

impl HealthJudge {
    /// Has `owner` check `endpoint`, unless another does, which lives.
    pub(crate) fn attach<'a>(endpoint: &'a Endpoint, owner: &Arc<Shared>) -> Option<&'a Self> {
        let judge = endpoint.vitals().attach(JudgeKind::Health, |gate| {
            Arc::new(Self {
                gate,
                record: Mutex::default(),
            })
        });
        let judge: &dyn Any = &**judge;
        let judge: &Self = judge.downcast_ref()?;
        let mut record = lock(&judge.record);
        if record.owner.strong_count() == 0 {
            record.owner = Arc::downgrade(owner);
        }
        let is_ours = std::ptr::eq(record.owner.as_ptr(), Arc::as_ptr(owner));
        drop(record);
        is_ours.then_some(judge)
    }

    /// The judge of `endpoint`, if there is one.
    pub(crate) fn of(endpoint: &Endpoint) -> Option<&Self> {
        let judge: &dyn Any = &**endpoint.vitals().gate().judge(JudgeKind::Health)?;
        judge.downcast_ref()
    }

    /// Takes the answer of a check; gives the state before and now if it has changed it.
    pub(crate) fn take(
        &self,
        answer: &Result<(), Failure>,
        took: Duration,
        at: Instant,
        thresholds: Thresholds,
    ) -> Option<(HealthState, HealthState)> {
        let mut record = lock(&self.record);
        record.answered = Some(at);
        record.took = took;
        record.checks += 1;
        let answer = match answer {
            Ok(()) => Answer::Success,
            Err(failure) => {
                record.failures += 1;
                record.error = Some(Arc::clone(&failure.why));
                match failure.definite {
                    true => Answer::Definite,
                    false => Answer::Failure,
                }
            }
        };
        let before = record.verdict.take(answer, thresholds)?;
        let state = record.verdict.state;
        self.gate.set(state == HealthState::Unhealthy);
        Some((before, state))
    }

    /// Nobody checks it any more, so nobody knows.
    pub(crate) fn let_go(&self) {
        let mut record = lock(&self.record);
        record.verdict = Verdict::default();
        record.owner = Weak::new();
        self.gate.set(false);
    }

    pub(crate) fn health(&self, endpoint: &Endpoint, now: Instant) -> EndpointHealth {
        let record = lock(&self.record);
        EndpointHealth {
            id: endpoint.id().to_owned(),
            address: endpoint.address(),
            state: record.verdict.state,
            age: record.answered.map(|at| now.since(at)),
            took: record.answered.map(|_| record.took),
            last_error: record.error.clone(),
            checks: record.checks,
            failures: record.failures,
        }
    }

    fn is_unhealthy(&self) -> bool {
        lock(&self.record).verdict.state == HealthState::Unhealthy
    }
}

impl Judge for HealthJudge {
    fn standing(&self, _: Instant) -> Standing {
        match self.is_unhealthy() {
            true => Standing::Shut(SHUT),
            false => Standing::Open,
        }
    }

    fn admit(&self, _: Instant) -> Result<Ticket, Shut> {
        match self.is_unhealthy() {
            true => Err(SHUT),
            false => Ok(Ticket::new(0, false)),
        }
    }

    fn report(&self, _: Ticket, _: Outcome, _: Duration, _: Instant) {}

    fn succeed(&self, _: Ticket, _: u64, _: Instant) {}

    fn hears_successes(&self) -> bool {
        false
    }

    fn release(&self, _: Ticket) {}
}

/// Until when, only the checks will tell.
const SHUT: Shut = Shut::new(JudgeKind::Health, None);

impl fmt::Debug for HealthJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("state", &lock(&self.record).verdict.state)
            .finish_non_exhaustive()
    }
}
