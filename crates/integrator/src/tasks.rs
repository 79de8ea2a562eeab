//! Everything that a mesh runs in the background, in one place: the only spawning of the project.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, Waker},
};

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
    /// Ended when the mesh is dropped; connections go on then, for the sake of the bodies that are still read.
    background: CancellationToken,
    runtime: Handle,
}

impl Tasks {
    /// No tasks yet; they will run on the runtime of whoever calls this, if there is one.
    pub(crate) fn new() -> Option<Self> {
        let stop = CancellationToken::new();
        Some(Self {
            tracker: TaskTracker::new(),
            background: stop.child_token(),
            stop,
            runtime: Handle::try_current().ok()?,
        })
    }

    /// Runs `task` until it ends, or the mesh stops or is dropped.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_until(self.background.clone(), task);
    }

    /// Runs `task` as long as what is returned is held; it is gone when that is dropped, not when it would run next.
    #[must_use = "dropping it ends the task"]
    pub(crate) fn spawn_held(&self, task: impl Future<Output = ()> + Send + 'static) -> Held {
        let held = Held(Arc::new(Mutex::new(Slot {
            task: Some(Box::pin(task)),
            waker: None,
        })));
        // What it holds goes with whichever ends first: the owner may outlive a mesh that has stopped.
        let running = Held(Arc::clone(&held.0));
        self.spawn(poll_fn(move |cx| {
            let mut slot = running.0.lock().unwrap_or_else(PoisonError::into_inner);
            slot.waker = Some(cx.waker().clone());
            match &mut slot.task {
                Some(task) => task.as_mut().poll(cx),
                None => Poll::Ready(()),
            }
        }));
        held
    }

    /// Runs `task` until it ends, or `end` says so.
    pub(crate) fn spawn_until(
        &self,
        end: CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.tracker.spawn_on(
            async move {
                let _ = end.run_until_cancelled(task).await;
            },
            &self.runtime,
        );
    }

    /// Runs `task` to its end, also when the mesh has stopped.
    pub(crate) fn finish(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn_on(task, &self.runtime);
    }

    /// What hyper spawns its connections with: they run until they end, or the mesh stops.
    pub(crate) fn executor(
        &self,
    ) -> impl Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync + 'static {
        let tasks = self.clone();
        move |task| tasks.spawn_until(tasks.stop.clone(), task)
    }

    /// Cancelled when the mesh stops.
    pub(crate) fn child_token(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Ends what runs for the mesh itself; connections end when nobody uses them any more.
    pub(crate) fn let_go(&self) {
        self.background.cancel();
    }

    /// Ends all of them and waits until none runs.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// A task that ends with its owner; see [`Tasks::spawn_held`].
pub(crate) struct Held(Arc<Mutex<Slot>>);

struct Slot {
    task: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    waker: Option<Waker>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let (task, waker) = {
            let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            (slot.task.take(), slot.waker.take())
        };
        drop(task); // Outside the lock.
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn a_task_that_is_held_goes_with_its_owner_and_leaves_nothing_behind() {
        let tasks = Tasks::new().unwrap();
        let owned = Arc::new(());
        let inside = Arc::clone(&owned);
        let held = tasks.spawn_held(async move {
            let _inside = inside;
            pending::<()>().await;
        });
        tokio::task::yield_now().await;
        assert_eq!((tasks.running(), Arc::strong_count(&owned)), (1, 2));
        drop(held);
        assert_eq!(Arc::strong_count(&owned), 1, "at once");
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test]
    async fn a_task_that_was_stopped_holds_nothing_though_its_owner_is_there() {
        let tasks = Tasks::new().unwrap();
        let owned = Arc::new(());
        let inside = Arc::clone(&owned);
        let _held = tasks.spawn_held(async move {
            let _inside = inside;
            pending::<()>().await;
        });
        tasks.stop().await;
        assert_eq!(Arc::strong_count(&owned), 1);
    }
}
