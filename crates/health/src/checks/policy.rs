//! How often endpoints are asked, and how often they have to answer.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use tower_mesh_core::Ratio;

use crate::{checks::verdict::Thresholds, schedule::Pace};

/// How often endpoints are asked, and how many answers it takes to believe them.
///
/// | setting | default | from |
/// |---|---|---|
/// | [`interval`](Self::interval) | 10 s | Kubernetes' `periodSeconds` |
/// | [`time_limit`](Self::time_limit) | 1 s | Kubernetes' `timeoutSeconds`, and Pingora |
/// | [`unhealthy_after`](Self::unhealthy_after) | 3 failures in a row | Kubernetes' `failureThreshold` |
/// | [`healthy_after`](Self::healthy_after) | 1 success | Kubernetes' `successThreshold` |
/// | [`jitter`](Self::jitter) | up to 10 % on top | callers that have started together should not ask together for ever; Envoy has none |
/// | [`first_within`](Self::first_within) | 1 s | a service that is found is checked soon, and not all of it in one moment |
/// | [`at_once`](Self::at_once) | 32 | a thousand endpoints at 10 ms each take a third of a second |
#[derive(Clone, Debug, PartialEq)]
pub struct CheckPolicy {
    pub(crate) pace: Pace,
    pub(crate) thresholds: Thresholds,
}

/// The least interval.
const SHORTEST: Duration = Duration::from_millis(1);

impl Default for CheckPolicy {
    fn default() -> Self {
        Self {
            pace: Pace {
                interval: Duration::from_secs(10),
                jitter: Ratio::percent(10),
                first: Duration::from_secs(1),
                limit: Duration::from_secs(1),
                at_once: 32,
            },
            thresholds: Thresholds {
                unhealthy: 3,
                healthy: 1,
            },
        }
    }
}

impl CheckPolicy {
    /// The time from the end of one check of an endpoint to the beginning of the next. At least 1 ms.
    #[must_use]
    pub fn interval(mut self, time: Duration) -> Self {
        self.pace.interval = time.max(SHORTEST);
        self
    }

    /// A random share of up to this much is added to each interval.
    #[must_use]
    pub fn jitter(mut self, share: Ratio) -> Self {
        self.pace.jitter = share;
        self
    }

    /// The first check of an endpoint begins at a random time within this.
    #[must_use]
    pub fn first_within(mut self, time: Duration) -> Self {
        // So that a random share of it is a time, too.
        self.pace.first = time.min(Duration::from_secs(24 * 3_600));
        self
    }

    /// A check that has not answered after this time has failed.
    #[must_use]
    pub fn time_limit(mut self, time: Duration) -> Self {
        self.pace.limit = time;
        self
    }

    /// After so many failures in a row an endpoint is unhealthy.
    #[must_use]
    pub fn unhealthy_after(mut self, failures: NonZeroU32) -> Self {
        self.thresholds.unhealthy = failures.get();
        self
    }

    /// After so many successes in a row an unhealthy endpoint is healthy. One that has not been checked before is healthy
    /// after its first, as in Envoy.
    #[must_use]
    pub fn healthy_after(mut self, successes: NonZeroU32) -> Self {
        self.thresholds.healthy = successes.get();
        self
    }

    /// So many checks are under way at once at most, of all services together; others wait for their turn.
    #[must_use]
    pub fn at_once(mut self, checks: NonZeroUsize) -> Self {
        self.pace.at_once = checks.get();
        self
    }
}
