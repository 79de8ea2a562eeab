//! The end of a mesh: refuse, deregister, drain, stop.

use std::{fmt, time::Duration};

use tower_mesh_core::{Clock, Instant};

use crate::{
    lifecycle::Lifecycle,
    mesh::{Core, Services},
    started::Started,
};

/// How often a drain looks whether the calls have ended; counting them to wake it would cost each call.
const LOOK: Duration = Duration::from_millis(5);
/// What stopping may take beyond the limit, all together, and the parts of that.
const STOP: Duration = Duration::from_secs(1);
const PARTS: Duration = Duration::from_millis(900);

/// Ends the mesh. Each step may be repeated, so a shutdown that was dropped half-way is taken up by the next.
pub(crate) async fn shutdown(
    core: &Core,
    services: &Services,
    limit: Duration,
) -> Result<(), ShutdownError> {
    let clock = &core.clock;
    let end = clock.now() + limit;
    core.stage.advance(Lifecycle::Draining);
    // A second caller waits here, and finds everything done.
    let mut started = core.started.lock().await;
    let registered = deregister(&mut started, clock, end).await;
    let cut_off = drain(services, clock, end).await;
    let late = clock.now();
    // A second shutdown has nothing to tell.
    let all = services.all();
    if let Some(remember) = core.remember.as_ref().filter(|_| !all.is_empty()) {
        let _ = clock.within(STOP / 2, remember.save(&all)).await;
    }
    drop(all);
    core.discovery.shutdown();
    core.stage.advance(Lifecycle::Stopped);
    services.clear();
    let stopping = started.stop(late + PARTS);
    let given_up = clock.before(late + STOP, stopping).await;
    let running = given_up.unwrap_or_else(|| core.tasks.running());
    if cut_off == 0 && registered == 0 && running == 0 && given_up.is_some() {
        return Ok(());
    }
    Err(ShutdownError {
        cut_off,
        registered,
        running,
    })
}

/// Takes this process out of the registry; answers how many instances the registry did not let go.
pub(crate) async fn deregister(started: &mut Started, clock: &Clock, end: Instant) -> usize {
    let mut left = 0;
    while let Some(announced) = started.registrations.pop() {
        let id = announced.instance().endpoint().id().to_owned();
        match clock.before(end, announced.deregister()).await {
            Some(Ok(())) => tracing::info!(id, "deregistered"),
            Some(Err(error)) => {
                tracing::warn!(id, %error, "cannot deregister");
                left += 1;
            }
            None => {
                tracing::warn!(id, "the registry does not answer");
                left += 1;
            }
        }
    }
    left
}

/// Waits until no call is in flight; answers how many are when the time is up.
async fn drain(services: &Services, clock: &Clock, end: Instant) -> u64 {
    loop {
        let in_flight = services.in_flight();
        let now = clock.now();
        if in_flight == 0 || now >= end {
            return in_flight;
        }
        clock.sleep_until((now + LOOK).min(end)).await;
    }
}

/// A mesh has ended, but not as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownError {
    cut_off: u64,
    registered: usize,
    running: usize,
}

impl ShutdownError {
    /// Calls that were still in flight when the time was up.
    pub fn cut_off(&self) -> u64 {
        self.cut_off
    }

    /// Instances that the registry did not let go: it forgets them when their TTL has passed.
    pub fn still_registered(&self) -> usize {
        self.registered
    }

    /// Parts that did not stop, or background tasks that did not end.
    pub fn still_running(&self) -> usize {
        self.running
    }
}

impl fmt::Display for ShutdownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the mesh has ended with {} calls cut off, {} instances still registered, {} parts or tasks still running",
            self.cut_off, self.registered, self.running
        )
    }
}

impl std::error::Error for ShutdownError {}
