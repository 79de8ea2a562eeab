//! What the calls of one bulkhead share.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Weak},
    time::Duration,
};

use tower_mesh_core::{
    Clock, Finish, Instant, Outcome, Priority, frame,
    sync::{AtomicU64, Ordering},
};

use super::{error::Overloaded, handle::BulkheadSnapshot, permits::Permits};
use crate::adaptive::{Adaptive, control::Control};

/// The state of a layer value.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) permits: Permits,
    pub(crate) settings: Settings,
    /// Moves the limit, if it adapts.
    pub(crate) control: Option<Control>,
    /// A list of nobody else, for all the endpoints to share that this limit alone hears of.
    alone: Arc<Vec<Weak<Self>>>,
    refused: AtomicU64,
    timed_out: AtomicU64,
}

/// What the setters of the layer set.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(super) limit: NonZeroUsize,
    pub(super) queue: usize,
    pub(super) max_wait: Duration,
    /// How many critical calls may wait beside the others; nothing: all calls are the same.
    pub(super) critical: Option<usize>,
    pub(crate) clock: Clock,
    pub(super) adaptive: Option<Adaptive>,
}

impl Settings {
    /// How many may wait, when a call of this priority comes that wants to.
    pub(super) fn places(&self, priority: Priority) -> usize {
        match (self.critical, priority) {
            _ if self.max_wait.is_zero() => 0,
            (None, _) | (_, Priority::Default) => self.queue,
            (Some(more), Priority::Critical) => self.queue.saturating_add(more),
            // It would wait for what others are refused.
            _ => 0,
        }
    }

    /// How much the call that is polled matters.
    pub(super) fn priority(&self) -> Priority {
        self.critical
            .map_or(Priority::Default, |_| Priority::here())
    }
}

impl Pool {
    pub(super) fn new(settings: Settings) -> Arc<Self> {
        let permits = Permits::new(settings.limit.get());
        let adapt = |adaptive| Control::new(adaptive, &permits, settings.clock.now());
        let control = settings.adaptive.as_ref().map(adapt);
        Arc::new_cyclic(|this| Self {
            control,
            alone: Arc::new(vec![Weak::clone(this)]),
            permits,
            settings,
            refused: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
        })
    }

    /// The list of limits that holds this one alone.
    pub(crate) fn alone(&self) -> &Arc<Vec<Weak<Self>>> {
        &self.alone
    }

    /// The refusal of a call that found no permit and may not wait.
    #[cold]
    pub(super) fn refuse(&self) -> Overloaded {
        self.count_refused();
        Overloaded::full(self.permits.count().limit, self.settings.queue)
    }

    /// The refusal of a call that has waited long enough.
    #[cold]
    pub(super) fn give_up(&self, waited: Duration) -> Overloaded {
        self.count_timed_out();
        Overloaded::in_vain(self.permits.count().limit, self.settings.queue, waited)
    }

    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_timed_out(&self) {
        self.timed_out.fetch_add(1, Ordering::Relaxed);
    }

    /// The time of this poll.
    pub(crate) fn now(&self) -> Instant {
        frame::now(&self.settings.clock)
    }

    /// A permit came back that was watched, of so many that were out.
    #[cold]
    fn returned(&self, out: usize) {
        if let Some(control) = &self.control {
            control.returned(&self.permits, out, self.now());
        }
    }

    /// An attempt succeeded after so many nanoseconds: for a limit that adapts.
    #[inline]
    pub(crate) fn succeeded(&self, nanos: u64, now: Instant) {
        if let Some(control) = &self.control {
            control.succeeded(&self.permits, nanos, now);
        }
    }

    /// An attempt failed: for a limit that adapts.
    #[cold]
    pub(crate) fn failed(&self, outcome: Outcome, took: Duration, now: Instant) {
        if let Some(control) = &self.control {
            control.failed(&self.permits, outcome, took, now);
        }
    }

    /// Moves the limit; the upper bound, if it adapts.
    pub(super) fn set_limit(&self, limit: NonZeroUsize) {
        match &self.control {
            Some(control) => control.bound(&self.permits, limit.get(), self.settings.clock.now()),
            None => self.permits.resize(limit.get()),
        }
    }

    pub(super) fn snapshot(&self) -> BulkheadSnapshot {
        let count = self.permits.count();
        BulkheadSnapshot {
            limit: count.limit,
            in_use: count.out,
            waiting: count.waiting,
            queue: self.settings.queue,
            refused: self.refused.load(Ordering::Relaxed),
            timed_out: self.timed_out.load(Ordering::Relaxed),
        }
    }
}

/// Leave to run, as one of the calls that may run at once; dropping it lets the next one in.
///
/// A completion ([`BulkheadLayer::completion`](super::BulkheadLayer::completion)) decides how long it lasts.
#[must_use = "dropping it lets the next call in"]
pub struct Permit {
    pool: Arc<Pool>,
    /// A call has its permit from the first, and takes it later: that is one pointer less to move, and to drop. Whoever
    /// is outside of this crate only ever sees permits that are taken.
    taken: bool,
}

impl Permit {
    /// One that has yet to be taken from `pool`.
    pub(super) fn wanted(pool: Arc<Pool>) -> Self {
        let taken = false;
        Self { pool, taken }
    }

    /// Stands for one that has been taken from `pool`.
    pub(super) fn taken(pool: Arc<Pool>) -> Self {
        let taken = true;
        Self { pool, taken }
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(super) fn is_taken(&self) -> bool {
        self.taken
    }

    /// Takes it, if one is free at once.
    #[inline]
    pub(super) fn try_take(&mut self) -> bool {
        let Pool {
            permits, settings, ..
        } = &*self.pool;
        self.taken = if settings.priority() == Priority::Sheddable {
            permits.try_acquire_spare()
        } else {
            permits.try_acquire()
        };
        self.taken
    }
}

/// A bulkhead does not ask how a call ended: the permit lasts until it is dropped.
impl Finish for Permit {
    const LISTENS: bool = false;

    fn finish(&mut self, _: Outcome) {}
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.taken
            && let Some(out) = self.pool.permits.release()
        {
            self.pool.returned(out);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}
