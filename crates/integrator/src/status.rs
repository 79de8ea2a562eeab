//! The state of a mesh, for people and for machines.

mod gather;
mod show;

use std::time::Duration;

use serde::{Serialize, Serializer};

pub(crate) use self::gather::service_now;
use crate::lifecycle::Lifecycle;
pub use crate::remember::RememberStatus;

/// A mesh as it was at one moment. It prints as a table and serialises as JSON; durations are in milliseconds.
///
/// It holds names, addresses and numbers, no metadata and no secrets; who may see it is up to whoever serves it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The name of this process in the mesh.
    pub name: String,
    /// Where the mesh stands.
    pub lifecycle: Lifecycle,
    /// How long ago it was started.
    #[serde(rename = "up_ms", serialize_with = "millis")]
    pub up: Duration,
    /// Background tasks that run.
    pub tasks: usize,
    /// Whether this process can do its work: it runs, and no critical component is unhealthy.
    pub ready: bool,
    /// How its components are, by name.
    pub components: Vec<ComponentStatus>,
    /// Which configuration is in force.
    pub config: ConfigStatus,
    /// What is [remembered](crate::config#what-is-remembered), if anything is to be.
    pub remember: Option<RememberStatus>,
    /// The services in use, by name.
    pub services: Vec<ServiceStatus>,
}

/// A component of the process, see [`Mesh::components`](crate::Mesh::components).
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ComponentStatus {
    /// Its name.
    pub name: String,
    /// `healthy`, `degraded` or `unhealthy`.
    pub status: &'static str,
    /// Whether the process can do without.
    pub optional: bool,
    /// Where it is going: `improving`, `steady` or `worsening`.
    pub trend: &'static str,
    /// Why it was last no better than it was.
    pub last_error: Option<String>,
}

/// The configuration of a mesh.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ConfigStatus {
    /// The revision in force: 1 at the start, one more with each reload.
    pub revision: u64,
    /// Why the last reload was refused, if it was; the revision before stays in force.
    pub error: Option<String>,
}

/// One service in a [`Status`].
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// What discovery knows of it.
    pub discovery: DiscoveryStatus,
    /// Calls begun.
    pub calls: u64,
    /// Calls that have not ended.
    pub in_flight: u64,
    /// Calls that failed at an endpoint, or ran out of time or attempts.
    pub failed: u64,
    /// Calls that the mesh refused before any endpoint could fail them.
    pub refused: u64,
    /// Calls whose caller went away.
    pub abandoned: u64,
    /// What calls failed with, the latest kind first.
    pub errors: Vec<ErrorStatus>,
    /// The retry budget.
    pub retries: RetryStatus,
    /// Second attempts beside slow ones, if the service is hedged.
    pub hedges: Option<HedgeStatus>,
    /// How many endpoints were taken out for failing more than their peers.
    pub ejection: EjectionStatus,
    /// The limit of calls in flight.
    pub limit: LimitStatus,
    /// Whether so many endpoints are out that health and ejection are ignored and open breakers probed.
    pub panic: bool,
    /// The breaker of the service as a whole, if it has one.
    pub breaker: Option<BreakerStatus>,
    /// Its endpoints, in discovery's order.
    pub endpoints: Vec<EndpointStatus>,
}

/// What discovery knows of a service.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DiscoveryStatus {
    /// The source that answers.
    pub source: String,
    /// What it has said: `pending`, `found` or `absent`.
    pub resolution: &'static str,
    /// How many sets of endpoints it has published.
    pub revision: u64,
    /// How long ago it last answered, if it ever did. A source answers when something changes: a registry that is well and
    /// quiet has not answered for long, either.
    #[serde(rename = "age_ms", serialize_with = "maybe_millis")]
    pub age: Option<Duration>,
    /// For how long it has answered with nothing but errors, if it does so now.
    #[serde(rename = "failing_ms", serialize_with = "maybe_millis")]
    pub failing: Option<Duration>,
    /// Whether older endpoints are held, because the last answer had too few to be believed.
    pub suspect: bool,
    /// How long ago the registry last stood by these endpoints, if they are [remembered](crate::config#what-is-remembered)
    /// because it has not answered yet. They are suspect, too.
    #[serde(rename = "remembered_ms", serialize_with = "maybe_millis")]
    pub remembered: Option<Duration>,
    /// The last error, if the last answer was one.
    pub error: Option<String>,
}

/// Errors of one kind that callers of a service were given.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ErrorStatus {
    /// Their kind; `other` for errors of the user's own service.
    pub kind: &'static str,
    /// Whether the mesh refused these calls, before any endpoint could fail them.
    pub refused: bool,
    /// How many there were.
    pub count: u64,
    /// How long ago the first was.
    #[serde(rename = "first_ago_ms", serialize_with = "millis")]
    pub first_ago: Duration,
    /// How long ago the last was.
    #[serde(rename = "last_ago_ms", serialize_with = "millis")]
    pub last_ago: Duration,
    /// What one of the last said, of the last second with any.
    pub sample: String,
}

/// The retry budget of a service.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RetryStatus {
    /// Retries made.
    pub made: u64,
    /// Retries that the budget refused.
    pub refused: u64,
    /// Retries it would allow now.
    pub balance: f64,
}

/// The hedges of a service.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct HedgeStatus {
    /// How long a call waits before it is hedged; none until enough is known.
    #[serde(rename = "delay_ms", serialize_with = "maybe_millis")]
    pub delay: Option<Duration>,
    /// Hedges sent.
    pub sent: u64,
    /// Calls that a hedge has answered.
    pub won: u64,
    /// Hedges that the budget refused.
    pub refused: u64,
}

/// The ejections of a service.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EjectionStatus {
    /// Endpoints that are ejected.
    pub ejected: usize,
    /// Ejections there have been.
    pub ejections: u64,
    /// How many more there would have been, had not too many been out.
    pub withheld: u64,
}

/// Why and for how long an endpoint is ejected.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EjectedStatus {
    /// Why.
    pub reason: &'static str,
    /// For how much longer.
    #[serde(rename = "rest_ms", serialize_with = "millis")]
    pub rest: Duration,
    /// How often in a row.
    pub times: u32,
}

/// What checks have found of an endpoint.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CheckStatus {
    /// `healthy`, `unhealthy`, or `unknown` as long as they cannot tell.
    pub state: &'static str,
    /// How long ago the last one ended, if any has.
    #[serde(rename = "age_ms", serialize_with = "maybe_millis")]
    pub age: Option<Duration>,
    /// How long it took.
    #[serde(rename = "took_ms", serialize_with = "maybe_millis")]
    pub took: Option<Duration>,
    /// Why the last that failed has failed.
    pub last_error: Option<String>,
    /// How many have ended.
    pub checks: u64,
    /// How many of them have failed.
    pub failures: u64,
}

/// The limit of calls in flight of a service.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct LimitStatus {
    /// Calls that may run.
    pub limit: usize,
    /// The most that may, while the service keeps up.
    pub most: usize,
    /// How often it was lowered because the service did not keep up.
    pub lowered: u64,
    /// Calls that run, to the end of their bodies.
    pub in_use: usize,
    /// Calls that wait.
    pub waiting: usize,
    /// Calls it refused.
    pub refused: u64,
}

/// A breaker.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct BreakerStatus {
    /// Its state.
    pub state: String,
    /// When it may close, if it is open.
    #[serde(rename = "retry_after_ms", serialize_with = "maybe_millis")]
    pub retry_after: Option<Duration>,
    /// How often it has opened.
    pub opened: u64,
}

/// One endpoint of a service.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// Its id in the registry.
    pub id: String,
    /// Where it listens.
    pub address: String,
    /// Its share of the traffic.
    pub weight: u16,
    /// The zone it runs in.
    pub zone: Option<String>,
    /// How open its gate is: `open`, `limited`, or `shut by` and the judge.
    pub gate: String,
    /// Its breaker.
    pub breaker: Option<BreakerStatus>,
    /// What checks have found, if it is checked.
    pub check: Option<CheckStatus>,
    /// Why it is ejected, if it is.
    pub ejected: Option<EjectedStatus>,
    /// Attempts that have not ended.
    pub in_flight: u32,
    /// Attempts made.
    pub attempts: u64,
    /// Attempts that counted against it.
    pub failures: u64,
    /// The share of successes, weighted to the last second, 0 to 1.
    pub success: f32,
    /// Its mean latency, weighted to the last second.
    pub latency_ms: Option<f32>,
}

fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64() * 1e3)
}

fn maybe_millis<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => millis(duration, serializer),
        None => serializer.serialize_none(),
    }
}
