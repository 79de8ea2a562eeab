//! Everything that a mesh runs in the background, in one place: the only spawning of the project.

use std::{future::Future, pin::Pin};

use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Spawns, counts and ends background work: discovery's driver, heartbeats, hyper's connections.
///
/// # Clone
///
/// A clone is the same set of tasks.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    runtime: Handle,
}

impl Tasks {
    /// No tasks yet; they will run on the runtime of whoever calls this, if there is one.
    pub(crate) fn new() -> Option<Self> {
        Some(Self {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            runtime: Handle::try_current().ok()?,
        })
    }

    /// Runs `task` until it ends or the mesh stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn_on(
            async move {
                let _ = stop.run_until_cancelled(task).await;
            },
            &self.runtime,
        );
    }

    /// Runs `task` to its end, also when the mesh has stopped.
    pub(crate) fn finish(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn_on(task, &self.runtime);
    }

    /// What hyper spawns its connections with.
    pub(crate) fn executor(
        &self,
    ) -> impl Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync + 'static {
        let tasks = self.clone();
        move |task| tasks.spawn(task)
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Ends all of them, without waiting.
    pub(crate) fn cancel(&self) {
        self.stop.cancel();
        self.tracker.close();
    }

    /// Ends all of them and waits until none runs.
    pub(crate) async fn stop(&self) {
        self.cancel();
        self.tracker.wait().await;
    }
}
