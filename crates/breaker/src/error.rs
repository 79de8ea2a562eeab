//! What a service with an open breaker answers.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use tower_mesh_core::{Instant, Kind, Refusal, Shut};

use crate::phase::State;

/// The breaker has refused the call: nothing was sent.
///
/// Its source is a [`Refusal`] of the kind [`Kind::CircuitOpen`].
#[derive(Clone, Debug)]
pub struct Open {
    name: Arc<str>,
    refusal: Refusal,
}

impl Open {
    #[cold]
    pub(crate) fn new(name: &Arc<str>, state: State, shut: Shut, now: Instant) -> Self {
        let context = match state {
            State::ForcedOpen => format!("{name} is kept from calls until somebody releases it"),
            State::HalfOpen => format!("{name} has been failing, a probe is under way"),
            State::Ramping => format!("{name} has been failing and gets its calls back bit by bit"),
            _ => format!("{name} has been failing and is left alone for a while"),
        };
        let retry_after = shut.until().map(|until| until.since(now));
        Self {
            name: Arc::clone(name),
            refusal: Refusal::local(Kind::CircuitOpen)
                .with_retry_after(retry_after)
                .with_context(context),
        }
    }

    /// The name of the breaker.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// After what time a call may be admitted again, if that is known: while probes are under way it is not.
    pub fn retry_after(&self) -> Option<Duration> {
        self.refusal.retry_after()
    }
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)
    }
}

impl Error for Open {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.refusal)
    }
}

/// A policy was refused because breakers that run would have to count anew for it: its window, the threshold of a slow
/// call, or whether there is a rule over failures or slow calls at all is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountsOtherwise(pub(crate) ());

impl fmt::Display for CountsOtherwise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "breakers that run cannot change what they count: their window, the threshold of slow calls, and which rates they have",
        )
    }
}

impl Error for CountsOtherwise {}
