//! Wall time, which is what the columns in nanoseconds are about.

use std::time::{Duration, Instant};

/// Counts wall time from a start.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Begins now.
    #[allow(
        clippy::disallowed_methods,
        reason = "what is measured here is wall time, whatever the mesh takes time from"
    )]
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long it has been running.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
