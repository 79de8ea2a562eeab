//! A look at a bulkhead from outside, and a hand on it.

use std::{num::NonZeroUsize, sync::Arc};

use super::pool::Pool;

/// Shows how full a bulkhead is, and moves its limit.
///
/// # Clone
///
/// A clone is a handle on the same bulkhead.
#[derive(Clone, Debug)]
pub struct BulkheadHandle {
    pool: Arc<Pool>,
}

/// How full a bulkhead was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkheadSnapshot {
    /// How many calls may run at once.
    pub limit: usize,
    /// How many run. More than `limit` only after the limit was lowered, until enough of them have ended.
    pub in_use: usize,
    /// How many wait.
    pub waiting: usize,
    /// How many may wait.
    pub queue: usize,
    /// Calls ever refused without waiting.
    pub refused: u64,
    /// Calls ever refused after waiting in vain.
    pub timed_out: u64,
}

impl BulkheadHandle {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self { pool }
    }

    /// Moves the limit, at once and for every service of the layer.
    ///
    /// A higher limit lets those in who wait, in their order. A lower one cancels nobody: no call is let in until fewer
    /// run than it says. Limits above 1,073,741,823 count as that. Of a limit that adapts it moves the upper bound.
    pub fn set_limit(&self, limit: NonZeroUsize) {
        self.pool.set_limit(limit);
    }

    /// How full it is now.
    pub fn snapshot(&self) -> BulkheadSnapshot {
        self.pool.snapshot()
    }
}
