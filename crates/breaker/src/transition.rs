//! What a breaker tells of itself: each change of its state, to the log and to who listens.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use tokio::sync::broadcast;
use tokio_stream::{
    Stream,
    wrappers::{BroadcastStream, errors::BroadcastStreamRecvError},
};
use tower_mesh_core::Instant;

use crate::phase::{Phase, State};

/// Why a breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Too many calls in a row have failed.
    ConsecutiveFailures,
    /// Too large a share of the calls has failed.
    FailureRate,
    /// Too large a share of the calls was slow.
    SlowCallRate,
    /// Its open time is over, or its probes were lost: a call goes out as a probe.
    OpenTimeOver,
    /// So many endpoints of the service are out that a call goes out as a probe before the open time is over.
    Panic,
    /// The probes have failed.
    ProbesFailed,
    /// The probes have come back well.
    ProbesSucceeded,
    /// The ramp is over.
    RampedUp,
    /// Somebody forced it.
    Forced,
    /// Somebody let go of it.
    Released,
    /// Somebody had it begin anew.
    Reset,
    /// It was open when its state was saved.
    Restored,
}

impl Reason {
    /// The word for it in logs and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailureRate => "failure_rate",
            Self::SlowCallRate => "slow_call_rate",
            Self::OpenTimeOver => "open_time_over",
            Self::Panic => "panic",
            Self::ProbesFailed => "probes_failed",
            Self::ProbesSucceeded => "probes_succeeded",
            Self::RampedUp => "ramped_up",
            Self::Forced => "forced",
            Self::Released => "released",
            Self::Reset => "reset",
            Self::Restored => "restored",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A breaker has changed its state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The name of the breaker: the id of its endpoint, the key in its registry, or what its layer was named.
    pub name: Arc<str>,
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
    /// When.
    pub at: Instant,
    /// Why.
    pub reason: Reason,
    /// Rises with each transition of this breaker, and wraps. Those that follow each other within a moment may be
    /// heard of in another order.
    pub epoch: u32,
}

/// A transition as the circuit knows it, which has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) from: State,
    pub(crate) to: State,
    pub(crate) epoch: u32,
    pub(crate) at: Instant,
    pub(crate) reason: Reason,
}

impl Change {
    pub(crate) fn new(from: Phase, to: Phase, at: Instant, reason: Reason) -> Self {
        Self {
            from: from.state,
            to: to.state,
            epoch: to.epoch,
            at,
            reason,
        }
    }
}

/// Where the breakers of one layer, or of one registry, tell their transitions.
#[derive(Debug, Default)]
pub(crate) struct Events(OnceLock<broadcast::Sender<Transition>>);

/// An outage of a thousand endpoints is a thousand transitions at once.
const REMEMBERED: usize = 1_024;

impl Events {
    /// Tells `change`. Nothing is allocated, and nothing but the log is touched, until somebody listens.
    #[cold]
    pub(crate) fn tell(&self, name: &Arc<str>, change: Change) {
        let Change {
            from,
            to,
            epoch,
            at,
            reason,
        } = change;
        // A renewed lease is an epoch of its own and no change of state.
        if from == to {
            return;
        }
        log(name, change);
        if let Some(sender) = self.0.get() {
            let transition = Transition {
                name: Arc::clone(name),
                from,
                to,
                at,
                reason,
                epoch,
            };
            // It fails when nobody listens any more.
            let _ = sender.send(transition);
        }
    }

    pub(crate) fn listen(&self) -> Transitions {
        let sender = self.0.get_or_init(|| broadcast::Sender::new(REMEMBERED));
        Transitions(BroadcastStream::new(sender.subscribe()))
    }
}

fn log(name: &str, change: Change) {
    let (from, to, reason) = (
        change.from.as_str(),
        change.to.as_str(),
        change.reason.as_str(),
    );
    if to == State::Open.as_str() {
        tracing::warn!(breaker = name, from, to, reason, "circuit breaker opened");
    } else {
        tracing::info!(breaker = name, from, to, reason, "circuit breaker changed");
    }
}

/// A stream of the transitions of all breakers of one layer or registry, from when it was made.
///
/// Who listens slowly holds up nobody: the oldest of more than 1,024 transitions are lost, and the stream says how many.
/// It ends when the layer and all it has made are gone.
///
/// # Cancel safety
///
/// Nothing is lost when a future of its next item is dropped.
pub struct Transitions(BroadcastStream<Transition>);

impl Stream for Transitions {
    type Item = Result<Transition, Missed>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(Pin::new(&mut self.0).poll_next(cx));
        Poll::Ready(
            next.map(|item| {
                item.map_err(|BroadcastStreamRecvError::Lagged(count)| Missed { count })
            }),
        )
    }
}

impl fmt::Debug for Transitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transitions").finish_non_exhaustive()
    }
}

/// The listener was too slow: transitions have been lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    count: u64,
}

impl Missed {
    /// How many.
    pub const fn count(&self) -> u64 {
        self.count
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} transitions were missed, the listener is too slow",
            self.count
        )
    }
}

impl std::error::Error for Missed {}
