//! The refusal of a bulkhead.

use std::{error::Error, fmt, time::Duration};

use tower_mesh_core::{Kind, Refusal};

/// As many calls run, and as many wait, as may; or a call has waited in vain.
///
/// The inner service has not seen the request. The [`Refusal`] of kind [`Kind::Overloaded`] is its `source()`.
#[derive(Clone, Debug)]
pub struct Overloaded {
    limit: usize,
    queue: usize,
    waited: Duration,
    refusal: Refusal,
}

impl Overloaded {
    pub(super) fn full(limit: usize, queue: usize) -> Self {
        let context = match queue {
            0 => format!("{limit} calls may run at once, and do"),
            _ => format!("{limit} calls may run at once and {queue} wait, and do"),
        };
        Self::new(limit, queue, Duration::ZERO, context)
    }

    pub(super) fn in_vain(limit: usize, queue: usize, waited: Duration) -> Self {
        let context =
            format!("{limit} calls may run at once, and its turn did not come in {waited:?}");
        Self::new(limit, queue, waited, context)
    }

    fn new(limit: usize, queue: usize, waited: Duration, context: String) -> Self {
        Self {
            limit,
            queue,
            waited,
            refusal: Refusal::local(Kind::Overloaded).with_context(context),
        }
    }

    /// How many calls may run at once.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many calls may wait.
    pub fn queue(&self) -> usize {
        self.queue
    }

    /// How long the call has waited; zero if it was refused at once.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl fmt::Display for Overloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)
    }
}

impl Error for Overloaded {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.refusal)
    }
}
