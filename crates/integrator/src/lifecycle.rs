//! Where a mesh stands between its start and its end, and the parts that are started and stopped with it.

use std::{
    fmt,
    sync::atomic::{AtomicU8, Ordering},
};

use serde::Serialize;
use tower_mesh_core::{BoxError, BoxFuture};

/// Where a mesh stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Lifecycle {
    /// Its parts are being started.
    Starting,
    /// It takes calls.
    Running,
    /// It takes no new calls; those in flight go on.
    Draining,
    /// It has ended; nothing of it runs.
    Stopped,
}

impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        })
    }
}

/// A [`Lifecycle`] that only moves forward.
#[derive(Debug)]
pub(crate) struct Stage(AtomicU8);

const ORDER: [Lifecycle; 4] = [
    Lifecycle::Starting,
    Lifecycle::Running,
    Lifecycle::Draining,
    Lifecycle::Stopped,
];

impl Stage {
    pub(crate) const fn new() -> Self {
        Self(AtomicU8::new(Lifecycle::Starting as u8))
    }

    pub(crate) fn get(&self) -> Lifecycle {
        ORDER[usize::from(self.0.load(Ordering::Acquire))]
    }

    /// Whether calls are taken: one load.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) <= Lifecycle::Running as u8
    }

    /// Moves on to `to` and logs it; back is no move.
    pub(crate) fn advance(&self, to: Lifecycle) {
        let before = self.0.fetch_max(to as u8, Ordering::AcqRel);
        if before < to as u8 {
            tracing::info!(lifecycle = %to, "mesh");
        }
    }
}

/// When a part is started: the stages come in this order, and end in the opposite one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Start {
    /// Finding services.
    Discovery,
    /// Breakers and what else judges endpoints.
    Breakers,
    /// Health of this process and of others.
    Health,
    /// Metrics and what else watches.
    Monitoring,
}

/// A part of your own that is started and stopped with the mesh.
///
/// If it does not start, the mesh does not: what was started before it is stopped in the opposite order.
pub trait Component: Send + Sync + 'static {
    /// The word for it in logs and errors.
    fn name(&self) -> &str;

    /// Starts it; the next part waits until the future completes.
    fn start(&self) -> BoxFuture<'_, Result<(), BoxError>>;

    /// Stops it. Called once for each successful start, also when the mesh is dropped without a shutdown.
    ///
    /// All parts together have a second beyond the limit of a shutdown, or after the drop; then the future is dropped.
    fn stop(&self) -> BoxFuture<'_, ()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mesh_never_goes_back() {
        let stage = Stage::new();
        assert!(stage.is_open());
        stage.advance(Lifecycle::Draining);
        stage.advance(Lifecycle::Running);
        assert_eq!(stage.get(), Lifecycle::Draining);
        assert!(!stage.is_open());
        for (i, lifecycle) in ORDER.into_iter().enumerate() {
            assert_eq!(lifecycle as usize, i);
        }
    }
}
