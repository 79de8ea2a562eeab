//! What an unhealthy service answers.

use std::{error::Error, fmt, time::Duration};

use tower_mesh_core::{Endpoint, Instant, JudgeKind, Kind, Refusal, Shut};

/// The service is unhealthy, so the call was refused: nothing was sent.
///
/// Its source is a [`Refusal`] of the kind [`Kind::NoEndpoint`].
#[derive(Clone, Debug)]
pub struct ServiceUnhealthy {
    refusal: Refusal,
}

impl ServiceUnhealthy {
    #[cold]
    pub(crate) fn new(service: &Endpoint, shut: Shut, now: Instant) -> Self {
        let name = service.id();
        let context = match shut.by() {
            JudgeKind::Health => format!("{name} fails its health checks"),
            _ => format!("{name} has been failing and is left alone for a while"),
        };
        let retry_after = shut.until().map(|until| until.since(now));
        Self {
            refusal: Refusal::local(Kind::NoEndpoint)
                .with_retry_after(retry_after)
                .with_context(context),
        }
    }

    /// After what time a call may be admitted again, if that is known: of a health check it is not.
    pub fn retry_after(&self) -> Option<Duration> {
        self.refusal.retry_after()
    }
}

impl fmt::Display for ServiceUnhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)
    }
}

impl Error for ServiceUnhealthy {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.refusal)
    }
}
