//! What a mesh does for the calls to a service, unless told otherwise.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use http::{HeaderName, uri::PathAndQuery};
use tower_mesh_balance::Strategy;
use tower_mesh_core::Ratio;

use crate::config::{ConfigError, value::strategy_name};

/// The settings for the calls to one service; the default is for calls inside one data centre.
///
/// | setting | default | why, and where it comes from |
/// |---|---|---|
/// | `timeout` | 10 s | the whole call, retries included; Envoy's 15 s route timeout is known as too long |
/// | `balance` | best of three | the best p99 on uneven fleets, see [`Strategy`] |
/// | `min_nearby` | 3 | with fewer endpoints in the own zone one that fails leaves too little there, see [`balance`](crate::balance#priorities-and-zones) |
/// | `subset.size` | none | all endpoints are called: some of them only pays with hundreds of endpoints and of clients, see [`Subset`](crate::balance::Subset) |
/// | `subset.client` | drawn at the start | what tells this process from all others; who says it keeps its endpoints over a start |
/// | `hash.header` | none | any endpoint is as good as another, unless they remember what they were asked, see [`HashBy`](crate::balance::HashBy) |
/// | `hash.seed` | 0 | all clients agree; a seed of one's own keeps others from making keys that lead to one endpoint |
/// | `hash.capacity` | 1.25 | "Consistent Hashing with Bounded Loads": so many times an equal share, and then the next endpoint |
/// | `panic.max_out` | 50 % | Envoy's panic threshold: when more are out, their judges are not believed, see [`balance`](crate::balance#panic) |
/// | `panic.min_healthy` | 1 | somebody is tried whatever share may be out |
/// | `retry.attempts` | 3 | Google SRE: at most three attempts a request |
/// | `retry.per_try_timeout` | 3 s | an endpoint that never answers must not use up the call |
/// | `retry.budget` | 10 % + 1/s | with 20 % a service loaded to 85 % does not recover from a hang of 10 s |
/// | `retry.backoff` | 25 ms to 250 ms | Envoy |
/// | `breaker.consecutive_failures` | 5 | Envoy's and gRPC's outlier detection |
/// | `breaker.failure_rate` | 50 % of 10 s | resilience4j; the rate of MeshIntegrator |
/// | `breaker.open_for` | 1 s, doubling to 60 s | linkerd |
/// | `breaker.service` | off | endpoints fail alone; a breaker on the whole service adds an outage of its own |
/// | `ejection.enabled` | yes | sees who is merely worse than its peers, which a breaker cannot |
/// | `ejection.failure_rate` | 50 % of 20 calls in 10 s | deviations are blind to 3 dead of 10 and 1 dead of 3 |
/// | `ejection.eject_for` | 30 s a time, up to 5 min | gRPC's A50, Envoy; beside that, 1.9 standard deviations below the mean |
/// | `health.check` | none | calls tell without a check, of what callers really ask for, and who checks asks every endpoint, called or not; linkerd and gRPC do without, too |
/// | `health.path` | none | what an answer means is the service's to say; for `http` it has to be said |
/// | `health.interval` | 10 s | Kubernetes; up to 10 % later |
/// | `health.time_limit` | 1 s | Kubernetes |
/// | `health.unhealthy_after` | 3 in a row | Kubernetes; a status that is no success counts at once, as in Envoy |
/// | `health.healthy_after` | 1 | Kubernetes |
/// | `health.grpc_service` | the server as a whole | gRPC's health service |
/// | `slow_start` | 30 s | a new endpoint's queue is empty, and all callers see that at once |
/// | `hedge.percentile` | off | where there is no room a second attempt does harm, see [`HedgeLayer`](crate::retry::HedgeLayer) |
/// | `limit.max_in_flight` | 1,024 | Envoy's and gRPC's cap for a cluster |
/// | `limit.adaptive` | yes | below that the limit follows what the service can bear: it is what ends a storm of retries, see [`adaptive`](crate::limit::adaptive) |
/// | `limit.queue` | none | a queue that fills is latency for every call; who wants one says how long |
/// # Few endpoints
///
/// What these settings come to where one or some of few endpoints are dead or stand still, at a hundred calls a second:
///
/// | | dead: they fail each call | standing still for 10 s |
/// |---|---|---|
/// | the only one | calls are refused at once, but for a probe now and then: fewer than 100 of 3,000 reach it | all calls of that time are lost; the first second after it is as before |
/// | one of two, one of three | no call is lost once it is known, and fewer than two a second reach it; the last one is never ejected | no call is lost: it is tried again elsewhere after `retry.per_try_timeout`, and five such open the breaker; it is called again within 10 s |
/// | three of ten | the same, and no panic: that begins when more than half are out | the same; but one whose last answer took seconds is left out for minutes while the others have nothing to do |
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Policy {
    /// How long a call may take, retries included, until its response begins.
    pub timeout: Duration,
    /// How endpoints are chosen.
    pub balance: Strategy,
    /// How many endpoints have to be as near as each other to be preferred to those further away, where the mesh knows its
    /// zone.
    pub min_nearby: usize,
    /// Which of the endpoints are called.
    pub subset: SubsetPolicy,
    /// Which calls go to the same endpoint.
    pub hash: HashPolicy,
    /// How many endpoints may be out before their judges are not believed.
    pub panic: PanicPolicy,
    /// What is tried again, and how often.
    pub retry: RetryPolicy,
    /// When an endpoint is left alone.
    pub breaker: BreakerPolicy,
    /// When an endpoint is taken out that fails more than its peers.
    pub ejection: EjectionPolicy,
    /// How endpoints are asked whether they are well.
    pub health: HealthPolicy,
    /// For how long an endpoint that is new or back gets less than its share; zero for not at all.
    pub slow_start: Duration,
    /// When a second attempt is made beside the first.
    pub hedge: HedgePolicy,
    /// How many calls may run at once.
    pub limit: LimitPolicy,
}

/// See [`Policy`], and [`Subset`](crate::balance::Subset).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubsetPolicy {
    /// How many endpoints of each priority and distance are called; `None` for all of them.
    pub size: Option<NonZeroUsize>,
    /// A name that no other process has, or all that share it call the same endpoints; empty for one that is drawn.
    pub client: String,
}

/// See [`Policy`], and [`HashBy`](crate::balance::HashBy) for how much of it an endpoint takes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HashPolicy {
    /// Calls with the same value in this header go to the same endpoint, while it is well and has room; of several values
    /// the first counts. A call without it, and all of them if this is `None`, go where `balance` says. It costs a call
    /// one allocation.
    pub header: Option<HeaderName>,
    /// What values are hashed with; the same in all clients that are to agree on an endpoint.
    pub seed: u64,
    /// How many calls an endpoint takes at once for its values, as a multiple of an equal share; at least 1.
    pub capacity: f64,
}

impl Default for HashPolicy {
    fn default() -> Self {
        Self {
            header: None,
            seed: 0,
            capacity: 1.25,
        }
    }
}

/// See [`Policy`]. A share of one and a minimum of none believe the judges whatever they say.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PanicPolicy {
    /// The share of the endpoints that may be unhealthy, ejected or have an open breaker.
    pub max_out: Ratio,
    /// How many endpoints have to be none of that.
    pub min_healthy: usize,
}

/// See [`Policy`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts: NonZeroU32,
    /// How long one attempt may take; `None` leaves it what the call has left.
    pub per_try_timeout: Option<Duration>,
    /// Retries as a share of calls.
    pub budget: Ratio,
    /// Retries a second that are allowed however few calls there are.
    pub min_per_second: u32,
    /// The wait before the first retry, at most.
    pub backoff: Duration,
    /// The wait before any retry, at most.
    pub max_backoff: Duration,
}

/// See [`Policy`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BreakerPolicy {
    /// Failures in a row that open it.
    pub consecutive_failures: NonZeroU32,
    /// The share of failures, over ten seconds and at least ten calls, that opens it.
    pub failure_rate: Ratio,
    /// How long it stays open the first time.
    pub open_for: Duration,
    /// How long it stays open at most, after doubling.
    pub max_open: Duration,
    /// Whether the service as a whole has a breaker, too.
    pub service: bool,
}

/// See [`Policy`], and [`OutlierPolicy`](crate::health::OutlierPolicy) for what is the same for all services. How many may
/// be out is [`PanicPolicy`]'s to say. Failures in a row are the breaker's business: it finds out sooner when they end.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EjectionPolicy {
    /// Whether any endpoint is ejected.
    pub enabled: bool,
    /// The share of failures, over ten seconds and at least twenty calls, that ejects.
    pub failure_rate: Ratio,
    /// For how long, the first time; twice as long the second time in a row, and so on.
    pub eject_for: Duration,
    /// For how long at most.
    pub max_eject: Duration,
}

/// See [`Policy`]. Checks connect to the endpoint's own address, whatever client makes the calls, and over TLS if the service is
/// called so. At most 32 of a service are under way at once; more take turns.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HealthPolicy {
    /// What is asked.
    pub check: Check,
    /// What `http` asks for, which has to be answered with a status from 200 to 299.
    pub path: Option<PathAndQuery>,
    /// The time from one check of an endpoint to its next.
    pub interval: Duration,
    /// How long a check may take.
    pub time_limit: Duration,
    /// After so many failures in a row an endpoint takes no calls.
    pub unhealthy_after: NonZeroU32,
    /// After so many successes in a row it does again.
    pub healthy_after: NonZeroU32,
    /// Which service of its server `grpc` asks about; none for the server as a whole.
    pub grpc_service: String,
}

/// How endpoints are asked whether they are well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Check {
    /// They are not.
    #[default]
    None,
    /// By whether their port answers, see [`TcpCheck`](crate::health::TcpCheck). An endpoint that calls have ejected is not
    /// let back in for it.
    Tcp,
    /// By a path, see [`HttpProbe`](crate::http::HttpProbe).
    Http,
    /// By their health service, see [`GrpcProbe`](crate::http::GrpcProbe).
    Grpc,
}

impl Check {
    /// All of them, by the name that a configuration gives them.
    pub(crate) const NAMES: [(&'static str, Self); 4] = [
        ("none", Self::None),
        ("tcp", Self::Tcp),
        ("http", Self::Http),
        ("grpc", Self::Grpc),
    ];

    /// The word for it in a configuration.
    pub fn as_str(self) -> &'static str {
        let mut named = Self::NAMES.iter();
        let found = named.find(|(_, check)| *check == self);
        found.map_or("", |(name, _)| name)
    }
}

/// See [`Policy`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HedgePolicy {
    /// The share of attempts that take less time than one that is hedged; `None` hedges nothing.
    pub percentile: Option<Ratio>,
    /// Attempts of one call at the same time.
    pub attempts: NonZeroU32,
}

/// See [`Policy`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LimitPolicy {
    /// Calls that may run at once, to the end of their response's body.
    pub max_in_flight: NonZeroUsize,
    /// Whether fewer may while the service does not keep up.
    pub adaptive: bool,
    /// Calls that may wait for one of those to end.
    pub queue: usize,
    /// How long a call may wait.
    pub max_wait: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            balance: Strategy::BestOfThree,
            min_nearby: 3,
            subset: SubsetPolicy::default(),
            hash: HashPolicy::default(),
            panic: PanicPolicy {
                max_out: Ratio::percent(50),
                min_healthy: 1,
            },
            retry: RetryPolicy {
                attempts: const { NonZeroU32::new(3).expect("not zero") },
                per_try_timeout: Some(Duration::from_secs(3)),
                budget: Ratio::percent(10),
                min_per_second: 1,
                backoff: Duration::from_millis(25),
                max_backoff: Duration::from_millis(250),
            },
            breaker: BreakerPolicy {
                consecutive_failures: const { NonZeroU32::new(5).expect("not zero") },
                failure_rate: Ratio::percent(50),
                open_for: Duration::from_secs(1),
                max_open: Duration::from_secs(60),
                service: false,
            },
            ejection: EjectionPolicy {
                enabled: true,
                failure_rate: Ratio::percent(50),
                eject_for: Duration::from_secs(30),
                max_eject: Duration::from_secs(300),
            },
            health: HealthPolicy {
                check: Check::None,
                path: None,
                interval: Duration::from_secs(10),
                time_limit: Duration::from_secs(1),
                unhealthy_after: const { NonZeroU32::new(3).expect("not zero") },
                healthy_after: NonZeroU32::MIN,
                grpc_service: String::new(),
            },
            slow_start: Duration::from_secs(30),
            hedge: HedgePolicy {
                percentile: None,
                attempts: const { NonZeroU32::new(2).expect("not zero") },
            },
            limit: LimitPolicy {
                max_in_flight: const { NonZeroUsize::new(1024).expect("not zero") },
                adaptive: true,
                queue: 0,
                max_wait: Duration::from_secs(1),
            },
        }
    }
}

impl Policy {
    /// Every setting by its key in a [configuration file](crate::config), with its value as a person would write it.
    ///
    /// ```
    /// use tower_mesh::Policy;
    ///
    /// let timeout = Policy::default().settings()[0].clone();
    /// assert_eq!(timeout, ("timeout", "10s".to_owned()));
    /// ```
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let Self {
            timeout,
            balance,
            min_nearby,
            subset,
            hash,
            panic,
            retry,
            breaker,
            ejection,
            health,
            slow_start,
            hedge,
            limit,
        } = self;
        let time = |time: Duration| humantime::format_duration(time).to_string();
        let per_try = retry.per_try_timeout;
        vec![
            ("timeout", time(*timeout)),
            ("balance", strategy_name(*balance).to_owned()),
            ("min_nearby", min_nearby.to_string()),
            (
                "subset.size",
                (subset.size).map_or_else(|| "none".to_owned(), |size| size.to_string()),
            ),
            ("subset.client", subset.client.clone()),
            (
                "hash.header",
                (hash.header.as_ref()).map_or_else(|| "none".to_owned(), ToString::to_string),
            ),
            ("hash.seed", hash.seed.to_string()),
            ("hash.capacity", hash.capacity.to_string()),
            ("panic.max_out", panic.max_out.to_string()),
            ("panic.min_healthy", panic.min_healthy.to_string()),
            ("retry.attempts", retry.attempts.to_string()),
            (
                "retry.per_try_timeout",
                per_try.map_or_else(|| "none".to_owned(), time),
            ),
            ("retry.budget", retry.budget.to_string()),
            ("retry.min_per_second", retry.min_per_second.to_string()),
            ("retry.backoff", time(retry.backoff)),
            ("retry.max_backoff", time(retry.max_backoff)),
            (
                "breaker.consecutive_failures",
                breaker.consecutive_failures.to_string(),
            ),
            ("breaker.failure_rate", breaker.failure_rate.to_string()),
            ("breaker.open_for", time(breaker.open_for)),
            ("breaker.max_open", time(breaker.max_open)),
            ("breaker.service", breaker.service.to_string()),
            ("ejection.enabled", ejection.enabled.to_string()),
            ("ejection.failure_rate", ejection.failure_rate.to_string()),
            ("ejection.eject_for", time(ejection.eject_for)),
            ("ejection.max_eject", time(ejection.max_eject)),
            ("health.check", health.check.as_str().to_owned()),
            (
                "health.path",
                (health.path.as_ref()).map_or_else(|| "none".to_owned(), ToString::to_string),
            ),
            ("health.interval", time(health.interval)),
            ("health.time_limit", time(health.time_limit)),
            ("health.unhealthy_after", health.unhealthy_after.to_string()),
            ("health.healthy_after", health.healthy_after.to_string()),
            ("health.grpc_service", health.grpc_service.clone()),
            ("slow_start", time(*slow_start)),
            (
                "hedge.percentile",
                (hedge.percentile).map_or_else(|| "none".to_owned(), |share| share.to_string()),
            ),
            ("hedge.attempts", hedge.attempts.to_string()),
            ("limit.max_in_flight", limit.max_in_flight.to_string()),
            ("limit.adaptive", limit.adaptive.to_string()),
            ("limit.queue", limit.queue.to_string()),
            ("limit.max_wait", time(limit.max_wait)),
        ]
    }

    /// Checks what holds between the settings.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |key, what: String| Err(ConfigError::at(key, what));
        for (key, time) in [
            ("timeout", self.timeout),
            (
                "retry.per_try_timeout",
                self.retry.per_try_timeout.unwrap_or(Duration::MAX),
            ),
            ("retry.backoff", self.retry.backoff),
            ("breaker.open_for", self.breaker.open_for),
            ("ejection.eject_for", self.ejection.eject_for),
            ("health.interval", self.health.interval),
            ("health.time_limit", self.health.time_limit),
        ] {
            if time.is_zero() {
                return refuse(key, "a duration must be above zero".to_owned());
            }
        }
        if !(self.hash.capacity >= 1.0 && self.hash.capacity.is_finite()) {
            return refuse(
                "hash.capacity",
                "with less than an equal share each, some calls would find no endpoint; write 1 or more".to_owned(),
            );
        }
        if self.panic.max_out == Ratio::ZERO {
            return refuse(
                "panic.max_out",
                "a share of zero would believe no breaker and no health check at all".to_owned(),
            );
        }
        let retry = &self.retry;
        if retry.max_backoff < retry.backoff {
            let (first, max) = (retry.backoff, retry.max_backoff);
            return refuse(
                "retry.max_backoff",
                format!("{max:?} is below the first backoff ({first:?})"),
            );
        }
        let breaker = &self.breaker;
        if breaker.max_open < breaker.open_for {
            let (first, max) = (breaker.open_for, breaker.max_open);
            return refuse(
                "breaker.max_open",
                format!("{max:?} is below open_for ({first:?})"),
            );
        }
        if self.health.check == Check::Http && self.health.path.is_none() {
            return refuse(
                "health.path",
                "`http` has to be told what to ask for".to_owned(),
            );
        }
        let ejection = &self.ejection;
        if ejection.max_eject < ejection.eject_for {
            let (first, max) = (ejection.eject_for, ejection.max_eject);
            return refuse(
                "ejection.max_eject",
                format!("{max:?} is below eject_for ({first:?})"),
            );
        }
        if ejection.failure_rate == Ratio::ZERO {
            return refuse(
                "ejection.failure_rate",
                "a rate of zero would eject whoever is called".to_owned(),
            );
        }
        if breaker.failure_rate == Ratio::ZERO {
            return refuse(
                "breaker.failure_rate",
                "a rate of zero would open on any call".to_owned(),
            );
        }
        Ok(())
    }
}
