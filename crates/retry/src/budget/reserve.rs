//! The retries that are allowed whatever the traffic.

use std::time::Duration;

use tower_mesh_core::sync::{AtomicU64, Ordering};

/// A steady trickle, kept as the one point in time up to which it is used up: a withdrawal moves it on by the time in
/// which one comes in, and it is never further back than `span`.
pub(super) struct Reserve {
    /// In which time one comes in; `u64::MAX` for never.
    interval: u64,
    /// For how long it collects.
    span: u64,
    used_until: AtomicU64,
}

impl Reserve {
    /// `per_second`, collected over `burst`; a slow trickle collects one.
    pub(super) fn new(per_second: u32, burst: Duration) -> Self {
        let burst = u64::try_from(burst.as_nanos()).unwrap_or(u64::MAX);
        let (interval, span) = match u64::from(per_second) {
            0 => (u64::MAX, 0),
            per_second => {
                let interval = (1_000_000_000 / per_second).max(1);
                (interval, burst.max(interval))
            }
        };
        Self {
            interval,
            span,
            used_until: AtomicU64::new(0),
        }
    }

    /// From when on it is unused.
    fn unused_from(&self, used_until: u64, now: u64) -> u64 {
        used_until.max(now.saturating_sub(self.span))
    }

    pub(super) fn withdraw(&self, now: u64) -> bool {
        self.used_until
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used_until| {
                let to = self
                    .unused_from(used_until, now)
                    .checked_add(self.interval)?;
                (to <= now).then_some(to)
            })
            .is_ok()
    }

    /// Undoes one withdrawal.
    pub(super) fn give_back(&self) {
        // Each withdrawal has added at least this much.
        self.used_until.fetch_sub(self.interval, Ordering::Relaxed);
    }

    pub(super) fn balance(&self, now: u64) -> f64 {
        let used_until = self.used_until.load(Ordering::Relaxed);
        let unused = now.saturating_sub(self.unused_from(used_until, now));
        unused as f64 / self.interval as f64
    }
}
