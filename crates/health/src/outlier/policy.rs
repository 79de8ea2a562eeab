//! Who is ejected, for how long, and how many may be.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use tower_mesh_core::Ratio;

use crate::outlier::{bounds::Bounds, term::Terms};

/// Who is ejected, for how long, and how many may be.
///
/// Any of its rules ejects. Each starts at a default made for services of any size, three endpoints and one of them dead
/// as well as ten and three of them dead:
///
/// | setting | default | from |
/// |---|---|---|
/// | [`consecutive_failures`](Self::consecutive_failures) | 5 | Envoy |
/// | [`success_rate`](Self::success_rate) | 1.9 standard deviations below the mean | gRPC A50, Envoy |
/// | [`success_hosts`](Self::success_hosts), [`success_volume`](Self::success_volume) | 5 endpoints, 100 calls each | gRPC A50, Envoy |
/// | [`success_floor`](Self::success_floor) | 95 % | deviations know no size: an endpoint at 99.0 % among others at 99.9 % is as far out as one at 0 %. What fails less than 1 call in 20 is half of what the retry budget makes good |
/// | [`failure_percentage`](Self::failure_percentage) | 50 % of 20 calls | deviations are blind once more than 21.7 % are bad: 3 of 10, 1 of 3. Envoy's 85 % of 50 calls is off there, and asks for 5 endpoints; this needs no peers, and a balancer leaves one that fails few calls to be counted. Half is what the breaker takes, and MeshIntegrator did; one that fails 1 call in 10 fails 10 of 20 once in 140,000 times |
/// | [`latency`](Self::latency) | off | a balancer that weighs latency gives a slow endpoint what it can do; ejected it does nothing, and one in a zone far away is slow and well |
/// | [`interval`](Self::interval) | 10 s | gRPC A50, Envoy |
/// | [`eject_for`](Self::eject_for), [`eject_at_most`](Self::eject_at_most) | 30 s for each time in a row, at most 300 s | gRPC A50, Envoy |
/// | [`jitter`](Self::jitter) | up to 10 % on top | callers that eject together should not come back together; Envoy has 0 |
/// | [`max_share`](Self::max_share) | 50 % | what the balancer believes: with more out it panics. Envoy's 10 % ejects nobody of fewer than 10 |
/// | [`min_healthy`](Self::min_healthy) | 1 | the last endpoint is never ejected |
/// | [`readmission`](Self::readmission) | a health check that succeeds | Envoy |
///
/// Nobody is ejected while more than half of the endpoints are out or fail, by whatever rule, or more than once in a row:
/// then it is no outlier that fails but what they have in common, and when that is over all of them are needed.
///
/// No value is invalid: what makes no sense cannot be said, and what is out of bounds is cut off at them.
///
/// # Example
///
/// As gRPC does it, for large services.
///
/// ```
/// use tower_mesh_core::Ratio;
/// use tower_mesh_health::OutlierPolicy;
///
/// let a50 = OutlierPolicy::default()
///     .consecutive_failures(None)
///     .success_floor(Ratio::ONE)
///     .failure_percentage(None)
///     .jitter(Ratio::ZERO)
///     .max_share(Ratio::percent(10))
///     .at_least_one();
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierPolicy {
    pub(crate) consecutive: Option<NonZeroU32>,
    pub(crate) success_rate: SuccessRate,
    pub(crate) failures: Option<FailureShare>,
    pub(crate) latency: Option<Latency>,
    pub(crate) interval: Duration,
    pub(crate) terms: Terms,
    pub(crate) bounds: Bounds,
    pub(crate) readmission: Readmission,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SuccessRate {
    pub(crate) stdevs: Option<f64>,
    pub(crate) hosts: usize,
    pub(crate) volume: u64,
    pub(crate) floor: Ratio,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FailureShare {
    pub(crate) threshold: Ratio,
    pub(crate) volume: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Latency {
    pub(crate) times: f64,
    pub(crate) at_least: Duration,
    pub(crate) volume: u64,
}

/// What lets an ejected endpoint come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Readmission {
    /// A health check that succeeds, or its time.
    #[default]
    HealthyCheck,
    /// Its time alone: for checks that say less than calls do, that a port answers for example.
    TimeAlone,
}

/// The least interval: evaluation is the driver's work, and should leave it time for other.
const SHORTEST: Duration = Duration::from_millis(1);

/// Calls in an interval below which neither a share of failures nor a latency says anything.
const FEW: u64 = 20;

impl Default for OutlierPolicy {
    fn default() -> Self {
        Self {
            consecutive: NonZeroU32::new(5),
            success_rate: SuccessRate {
                stdevs: Some(1.9),
                hosts: 5,
                volume: 100,
                floor: Ratio::percent(95),
            },
            failures: Some(FailureShare {
                threshold: Ratio::percent(50),
                volume: FEW,
            }),
            latency: None,
            interval: Duration::from_secs(10),
            terms: Terms {
                base: Duration::from_secs(30),
                most: Duration::from_secs(300),
                jitter: Ratio::percent(10),
            },
            bounds: Bounds {
                max_share: Ratio::percent(50),
                min_healthy: 1,
                at_least_one: false,
            },
            readmission: Readmission::HealthyCheck,
        }
    }
}

impl OutlierPolicy {
    /// Ejects after this many failures in a row, at once; `None` never. An overload (a 429, say) neither adds to the row
    /// nor ends it: an endpoint that says "not so much" is alive.
    #[must_use]
    pub fn consecutive_failures(mut self, failures: impl Into<Option<NonZeroU32>>) -> Self {
        self.consecutive = failures.into();
        self
    }

    /// Ejects whose share of successes in an interval is this many standard deviations below the mean of all; `None`
    /// never, and neither does what is no number or negative.
    #[must_use]
    pub fn success_rate(mut self, stdevs: impl Into<Option<f64>>) -> Self {
        self.success_rate.stdevs = stdevs.into().filter(|stdevs| *stdevs >= 0.0);
        self
    }

    /// How many endpoints must have had enough calls before their shares of successes are compared.
    #[must_use]
    pub fn success_hosts(mut self, endpoints: NonZeroUsize) -> Self {
        self.success_rate.hosts = endpoints.get();
        self
    }

    /// How many calls of an endpoint must have ended in an interval for its share of successes to be compared.
    #[must_use]
    pub fn success_volume(mut self, calls: NonZeroU32) -> Self {
        self.success_rate.volume = calls.get().into();
        self
    }

    /// Whose share of successes is at least this is no outlier, however far from the others it is.
    #[must_use]
    pub fn success_floor(mut self, share: Ratio) -> Self {
        self.success_rate.floor = share;
        self
    }

    /// Ejects who has failed this share of its calls in an interval, or more, if there were at least `calls` of them;
    /// `None` never. It asks for no peers.
    #[must_use]
    pub fn failure_percentage(mut self, rule: impl Into<Option<(Ratio, NonZeroU32)>>) -> Self {
        self.failures = rule.into().map(|(threshold, calls)| FailureShare {
            threshold,
            volume: calls.get().into(),
        });
        self
    }

    /// Ejects whose mean latency is `times` the median of its peers or more, and at least `at_least`, in two evaluations
    /// in a row: one pause of a collector is no reason. It asks for two peers, and for 20 calls of each in an interval.
    ///
    /// The mean is that of the last second's successes. What is no number or below one is one.
    #[must_use]
    pub fn latency(mut self, times: f64, at_least: Duration) -> Self {
        self.latency = Some(Latency {
            times: times.max(1.0),
            at_least,
            volume: FEW,
        });
        self
    }

    /// How often endpoints are compared, over the calls that have ended since. At least 1 ms.
    #[must_use]
    pub fn interval(mut self, time: Duration) -> Self {
        self.interval = time.max(SHORTEST);
        self
    }

    /// How long the first ejection lasts; each further one in a row as much longer. An interval among the others takes
    /// one of them back.
    #[must_use]
    pub fn eject_for(mut self, time: Duration) -> Self {
        self.terms.base = time;
        self
    }

    /// The longest that an ejection lasts; if it is less than [`eject_for`](Self::eject_for), that is.
    #[must_use]
    pub fn eject_at_most(mut self, time: Duration) -> Self {
        self.terms.most = time;
        self
    }

    /// A random share of up to this much is added to the time of each ejection, the longest too.
    #[must_use]
    pub fn jitter(mut self, share: Ratio) -> Self {
        self.terms.jitter = share;
        self
    }

    /// The largest share of the endpoints that may be out.
    ///
    /// It is strict, as Envoy's is: nobody is ejected if more than this share would be out afterwards,
    /// counting who is ejected, who fails its health checks, and whose breaker is open or on probation. Who drains or was
    /// taken out on purpose is not counted at all.
    #[must_use]
    pub fn max_share(mut self, share: Ratio) -> Self {
        self.bounds.max_share = share;
        self
    }

    /// Lets one endpoint be ejected also where the [share](Self::max_share) allows for none, as gRPC does, unless another
    /// is out.
    #[must_use]
    pub fn at_least_one(mut self) -> Self {
        self.bounds.at_least_one = true;
        self
    }

    /// How many endpoints must be in after an ejection, whatever the share.
    #[must_use]
    pub fn min_healthy(mut self, endpoints: usize) -> Self {
        self.bounds.min_healthy = endpoints;
        self
    }

    /// What lets an ejected endpoint come back.
    #[must_use]
    pub fn readmission(mut self, readmission: Readmission) -> Self {
        self.readmission = readmission;
        self
    }

    pub(crate) fn has_rules(&self) -> bool {
        self.consecutive.is_some()
            || self.success_rate.stdevs.is_some()
            || self.failures.is_some()
            || self.latency.is_some()
    }
}
