//! How long a call waits for its answer before it is hedged.

use std::time::Duration;

use tower_mesh_core::{
    Instant, Ratio,
    sync::{AtomicU64, Ordering},
};

use super::latencies::Latencies;

/// How long a call waits for its answer before another attempt is made beside it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum HedgeAfter {
    /// Always as long: gRPC's `hedgingDelay`.
    Fixed(Duration),
    /// As long as this share of the recent attempts took, and at least so long.
    ///
    /// Known once 100 attempts of the last 10 to 20 s have succeeded; before that nothing is hedged.
    Percentile {
        /// What share of the attempts was faster.
        share: Ratio,
        /// The least wait: a service that answers faster than a client can look is not hedged for a hiccup.
        at_least: Duration,
    },
}

/// The 95th percentile ("The Tail at Scale": that hedges one call of twenty and takes most of the tail), and at least
/// 1 ms (Finagle).
impl Default for HedgeAfter {
    fn default() -> Self {
        Self::Percentile {
            share: Ratio::percent(95),
            at_least: Duration::from_millis(1),
        }
    }
}

/// What a hedge has learned, and what has become of hedges: one state for all services of a layer.
pub(super) struct Timing {
    after: HedgeAfter,
    /// None for a fixed wait.
    latencies: Option<Box<Latencies>>,
    pub(super) sent: AtomicU64,
    pub(super) won: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// What a [`HedgeLayer`](crate::HedgeLayer) knows, and what became of its hedges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HedgeSnapshot {
    /// How long a call waits before it is hedged, as of the last call; none until enough is known.
    pub delay: Option<Duration>,
    /// Hedges that were sent.
    pub sent: u64,
    /// Calls that a hedge has answered.
    pub won: u64,
    /// Calls that would have been hedged, had the budget allowed it.
    pub refused: u64,
}

impl Timing {
    pub(super) fn new(after: HedgeAfter) -> Self {
        let latencies = match after {
            HedgeAfter::Fixed(_) => None,
            HedgeAfter::Percentile { share, .. } => Some(Box::new(Latencies::new(share))),
        };
        Self {
            after,
            latencies,
            sent: AtomicU64::new(0),
            won: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub(super) fn after(&self) -> HedgeAfter {
        self.after
    }

    /// Whether a call that begins about now may be hedged: what it would need is worth keeping.
    #[inline]
    pub(super) fn is_known(&self) -> bool {
        (self.latencies.as_ref()).is_none_or(|latencies| latencies.last().is_some())
    }

    /// How long a call that begins now waits.
    #[inline]
    pub(super) fn delay(&self, now: Instant) -> Option<Duration> {
        match &self.latencies {
            Some(latencies) => self.bounded(latencies.quantile(now.as_nanos())),
            None => self.bounded(None),
        }
    }

    fn bounded(&self, quantile: Option<u64>) -> Option<Duration> {
        match self.after {
            HedgeAfter::Fixed(delay) => Some(delay),
            HedgeAfter::Percentile { at_least, .. } => {
                quantile.map(|nanos| Duration::from_nanos(nanos).max(at_least))
            }
        }
    }

    /// Learns from a call that began at `begun` and has now been answered.
    ///
    /// Also if it was a hedge that answered: the first attempt would have taken longer still. Were such calls left out,
    /// the percentile would be of the fast ones only, fall, and so leave out more.
    #[inline]
    pub(super) fn record(&self, begun: Instant, now: impl FnOnce() -> Instant) {
        if let Some(latencies) = &self.latencies {
            latencies.record(now().as_nanos().saturating_sub(begun.as_nanos()));
        }
    }

    pub(super) fn snapshot(&self) -> HedgeSnapshot {
        let latencies = self.latencies.as_ref();
        HedgeSnapshot {
            delay: self.bounded(latencies.and_then(|latencies| latencies.last())),
            sent: self.sent.load(Ordering::Relaxed),
            won: self.won.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}
