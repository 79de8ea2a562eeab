//! Hears at the gates of endpoints how attempts end.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use tower_mesh_core::{Endpoint, Instant, Judge, JudgeKind, Outcome, Shut, Standing, Ticket};

use crate::bulkhead::Pool;

/// Passes on to limits how the attempts at one endpoint end. It never keeps anybody out.
///
/// An endpoint has one, whoever attaches it; limits join and leave. That of a layer that is gone costs nothing but its
/// place, until the next one joins.
pub(super) struct LimitJudge {
    limits: ArcSwap<Vec<Weak<Pool>>>,
}

impl LimitJudge {
    /// Has `limit` hear of the attempts at `endpoint`.
    pub(super) fn attach(endpoint: &Endpoint, limit: &Arc<Pool>) {
        let attach = |judge: Arc<Self>| {
            let judge: Arc<dyn Judge> = judge;
            Arc::clone(endpoint.vitals().attach(JudgeKind::Limit, |_| judge))
        };
        let limits = ArcSwap::new(Arc::clone(limit.alone()));
        let judge = attach(Arc::new(Self { limits }));
        let judge: Arc<dyn Any + Send + Sync> = judge;
        let Ok(judge) = judge.downcast::<Self>() else {
            return; // Somebody else's judge hears in its place.
        };
        if judge.join(limit) {
            // Asked once more whether it hears of successes: this limit may, when those before did not.
            attach(judge);
        }
    }

    /// False if it has joined already.
    fn join(&self, limit: &Arc<Pool>) -> bool {
        if self.limits().any(|known| Arc::ptr_eq(&known, limit)) {
            return false;
        }
        self.limits.rcu(|limits| {
            let mut limits: Vec<_> = (limits.iter())
                .filter(|limit| limit.strong_count() > 0)
                .cloned()
                .collect();
            limits.push(Arc::downgrade(limit));
            limits
        });
        true
    }

    fn limits(&self) -> impl Iterator<Item = Arc<Pool>> {
        let limits = self.limits.load_full();
        (0..limits.len()).filter_map(move |nth| limits[nth].upgrade())
    }
}

impl Judge for LimitJudge {
    fn standing(&self, _: Instant) -> Standing {
        Standing::Open
    }

    fn admit(&self, _: Instant) -> Result<Ticket, Shut> {
        Ok(Ticket::new(0, false))
    }

    fn report(&self, _: Ticket, outcome: Outcome, latency: Duration, now: Instant) {
        for limit in self.limits() {
            limit.failed(outcome, latency, now);
        }
    }

    fn succeed(&self, _: Ticket, nanos: u64, now: Instant) {
        for limit in self.limits.load().iter().filter_map(Weak::upgrade) {
            limit.succeeded(nanos, now);
        }
    }

    fn hears_successes(&self) -> bool {
        let hears = |limit: Arc<Pool>| limit.control.as_ref().map(|c| c.hears_successes());
        self.limits().filter_map(hears).any(|hears| hears)
    }

    fn release(&self, _: Ticket) {}
}

impl fmt::Debug for LimitJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitJudge")
            .field("limits", &self.limits().count())
            .finish()
    }
}
