//! Instances of this process that are registered, and kept so.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tower_mesh_core::{Clock, Instance, RegisterError, Registration};

use crate::tasks::{Held, Tasks};

/// How often a registry is told of an instance that has no TTL. No answer is due, but an agent that has lost its state has
/// the instance again as soon as that.
const EVERY: Duration = Duration::from_secs(30);

/// How soon it is told again when it did not take it. Callers hold endpoints for 30 s against a registry that comes back
/// with nothing (`discovery.empty_grace`): by then it has to have them.
const AGAIN: Duration = Duration::from_secs(5);

/// An instance that is registered, and whose heartbeats are sent.
#[derive(Debug)]
pub(crate) struct Announced {
    /// Ends with it, and lets go of the registration at once, also in the midst of a heartbeat.
    beats: Held,
    registration: Arc<Registration>,
}

impl Announced {
    pub(crate) fn new(registration: Registration, clock: &Clock, tasks: &Tasks) -> Self {
        let registration = Arc::new(registration);
        let beats = keep_alive(
            clock.clone(),
            Arc::downgrade(&registration),
            interval(&registration),
        );
        Self {
            beats: tasks.spawn_held(beats),
            registration,
        }
    }

    pub(crate) fn instance(&self) -> &Instance {
        self.registration.instance()
    }

    /// Whether `other` is registered in its place.
    pub(crate) fn is_replaced_by(&self, other: &Self) -> bool {
        let id = |this: &Self| {
            let instance = this.instance();
            (
                instance.service().clone(),
                instance.endpoint().id().to_owned(),
            )
        };
        id(self) == id(other)
    }

    /// Takes it out of the registry. A heartbeat that is under way is not waited for: the registry may never answer it.
    pub(crate) async fn deregister(self) -> Result<(), RegisterError> {
        drop(self.beats);
        match Arc::into_inner(self.registration) {
            Some(registration) => registration.deregister().await,
            None => Err(RegisterError::new("somebody else holds the registration")),
        }
    }
}

fn interval(registration: &Registration) -> Duration {
    registration.instance().ttl().map_or(EVERY, |ttl| ttl / 3)
}

/// Tells the registry that an instance lives, as long as it is registered.
async fn keep_alive(clock: Clock, registration: Weak<Registration>, every: Duration) {
    let mut pause = every;
    loop {
        clock.sleep(pause).await;
        let Some(registration) = registration.upgrade() else {
            return;
        };
        pause = every;
        let endpoint = registration.instance().endpoint();
        if let Err(error) = registration.heartbeat(endpoint.health()).await {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(id = endpoint.id(), %error, cause, "heartbeat failed");
            pause = every.min(AGAIN);
        }
    }
}
