//! How a limit is to adapt.

use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use super::{aimd::Aimd, algorithm::Algorithm};

/// How the limit of a bulkhead adapts: for [`BulkheadLayer::adaptive`](crate::BulkheadLayer::adaptive) and
/// [`AdaptiveLimitLayer`](super::AdaptiveLimitLayer).
///
/// | | default | why |
/// |---|---|---|
/// | `algorithm` | [`Aimd`] | see [the module](super) |
/// | `min` | 1 | a service that does not answer needs no more to be found back; with 500 clients each more is 1,000 attempts a second for nothing |
/// | `start` | the upper bound | a client that has just started knows nothing against the service: it is throttled by nothing |
/// | `forget` | 30 s | after this long without overload, and with less than half of it in use, the limit is as at the start |
#[derive(Clone)]
pub struct Adaptive {
    pub(crate) algorithm: Arc<dyn Fn() -> Box<dyn Algorithm> + Send + Sync>,
    pub(crate) min: NonZeroUsize,
    pub(crate) start: Option<NonZeroUsize>,
    pub(crate) forget: Duration,
}

const FORGET: Duration = Duration::from_secs(30);

impl Adaptive {
    /// With the defaults above.
    pub fn new() -> Self {
        Self {
            algorithm: Arc::new(|| Box::new(Aimd::new())),
            min: NonZeroUsize::MIN,
            start: None,
            forget: FORGET,
        }
    }

    /// Moves it by an algorithm of your own, or another of ours. Each layer gets one that `make` makes.
    #[must_use]
    pub fn algorithm<A: Algorithm>(mut self, make: impl Fn() -> A + Send + Sync + 'static) -> Self {
        self.algorithm = Arc::new(move || Box::new(make()));
        self
    }

    /// Never goes below this; more than the upper bound counts as that.
    #[must_use]
    pub fn min(mut self, min: NonZeroUsize) -> Self {
        self.min = min;
        self
    }

    /// Begins here; less than the minimum counts as that, more than the upper bound too.
    #[must_use]
    pub fn start(mut self, start: NonZeroUsize) -> Self {
        self.start = Some(start);
        self
    }

    /// Forgets what was learned after this long without overload, once less than half of the limit is in use.
    #[must_use]
    pub fn forget(mut self, after: Duration) -> Self {
        self.forget = after;
        self
    }
}

impl Default for Adaptive {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Adaptive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adaptive")
            .field("min", &self.min)
            .field("start", &self.start)
            .field("forget", &self.forget)
            .finish_non_exhaustive()
    }
}
