//! What runs since a mesh has been started, and how it stops.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tower_mesh_core::{BoxError, Clock, Instant};

use crate::{
    announce::Announced,
    error::StartError,
    lifecycle::{Component, Start},
    tasks::Tasks,
};

/// How long parts may take to stop, all together, when nobody waits for them or nothing else is said.
const PATIENCE: Duration = Duration::from_secs(1);

/// What has been started; dropped, it stops all of it, the last first, but for connections that are in use.
pub(crate) struct Started {
    tasks: Tasks,
    clock: Clock,
    components: Vec<Arc<dyn Component>>,
    pub(crate) registrations: Vec<Announced>,
}

impl Started {
    pub(crate) fn new(tasks: Tasks, clock: Clock) -> Self {
        Self {
            tasks,
            clock,
            components: Vec::new(),
            registrations: Vec::new(),
        }
    }

    /// Starts the users' components of `start`, in the order in which they were given.
    pub(crate) async fn components(
        &mut self,
        components: &mut [(Start, Arc<dyn Component>)],
        start: Start,
    ) -> Result<(), StartError> {
        for (_, component) in components.iter().filter(|(at, _)| *at == start) {
            if let Err(error) = component.start().await {
                let name = component.name().to_owned();
                tracing::error!(component = name, %error, "mesh does not start");
                self.stop(self.clock.now() + PATIENCE).await;
                return Err(StartError::new(format!("{name} did not start")).caused_by(error));
            }
            self.components.push(Arc::clone(component));
        }
        Ok(())
    }

    /// Stops the part that has the name of `new` and starts `new` in its place; if that does not start before `limit` is
    /// over, the old one is started again.
    pub(crate) async fn replace(
        &mut self,
        new: Arc<dyn Component>,
        clock: &Clock,
        limit: Duration,
    ) -> Result<(), StartError> {
        let name = new.name().to_owned();
        let Some(at) = self.components.iter().position(|old| old.name() == name) else {
            let known: Vec<_> = self.components.iter().map(|old| old.name()).collect();
            let what = format!("no part is called {name}, but {}", known.join(", "));
            return Err(StartError::new(what));
        };
        // Out of the list while it does not run: what is in it is stopped once more at the end.
        let old = self.components.remove(at);
        if clock.within(limit, old.stop()).await.is_none() {
            tracing::warn!(
                component = name,
                ?limit,
                "a part does not stop, it is given up"
            );
        }
        let error = match begin(&*new, clock, limit).await {
            Some(Ok(())) => {
                tracing::info!(component = name, "replaced");
                self.components.insert(at, new);
                return Ok(());
            }
            Some(Err(error)) => {
                StartError::new(format!("the new {name} did not start")).caused_by(error)
            }
            None => StartError::new(format!("the new {name} had not started after {limit:?}")),
        };
        let again = begin(&*old, clock, limit).await;
        match again.unwrap_or_else(|| Err(format!("it had not started after {limit:?}").into())) {
            Ok(()) => {
                tracing::error!(component = name, %error, "not replaced, the old one runs again");
                self.components.insert(at, old);
                Err(error)
            }
            Err(again) => {
                tracing::error!(component = name, %error, %again, "not replaced, and the old one is gone");
                Err(error.and_gone(again))
            }
        }
    }

    /// Stops all of it, the last first, and waits until nothing runs; answers how many parts had not stopped in time, and were
    /// given up. Dropped half-way, it can be called again.
    pub(crate) async fn stop(&mut self, by: Instant) -> usize {
        let mut given_up = 0;
        while let Some(component) = self.components.last() {
            // Also who comes late is told.
            if self.clock.before(by, component.stop()).await.is_none() {
                tracing::warn!(
                    component = component.name(),
                    "a part does not stop, it is given up"
                );
                given_up += 1;
            }
            self.components.pop();
        }
        self.tasks.stop().await;
        given_up
    }
}

/// Starts `part`; nothing if it has not started in time, and then it has been stopped.
async fn begin(
    part: &dyn Component,
    clock: &Clock,
    limit: Duration,
) -> Option<Result<(), BoxError>> {
    let started = clock.within(limit, caught(part.start())).await;
    if started.is_none() {
        clock.within(limit, part.stop()).await;
    }
    started
}

/// What `future` gives; a panic is an error.
async fn caught(future: impl Future<Output = Result<(), BoxError>>) -> Result<(), BoxError> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)))
            .unwrap_or_else(|_| Poll::Ready(Err("it panicked".into())))
    })
    .await
}

impl Drop for Started {
    fn drop(&mut self) {
        self.tasks.let_go();
        let components = std::mem::take(&mut self.components);
        if !components.is_empty() {
            let clock = self.clock.clone();
            self.tasks.finish(async move {
                let by = clock.now() + PATIENCE;
                for component in components.iter().rev() {
                    clock.before(by, component.stop()).await;
                }
            });
        }
    }
}
