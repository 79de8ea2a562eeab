//! The state of a mesh, for people and for machines.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use serde::{Serialize, Serializer};
use tower_mesh_breaker::Breaker;
use tower_mesh_core::{Endpoint, EndpointSet, Instant, JudgeKind, Kind, Resolution, Standing};
use tower_mesh_health::{ComponentSnapshot, Criticality, Ejection, EndpointHealth};

pub use crate::remember::RememberStatus;
use crate::{
    errors::Seen, lifecycle::Lifecycle, mesh::Core, metrics::is_refusal, service::State,
    stack::Layers,
};

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

impl Status {
    pub(crate) fn of(core: &Core, services: Vec<Arc<State>>) -> Self {
        let now = core.clock.now();
        let discovered = core.discovery.status();
        Self {
            name: core.name.to_string(),
            lifecycle: core.stage.get(),
            up: now.since(core.started_at),
            tasks: core.tasks.running(),
            ready: core.is_ready(),
            components: (core.components.snapshot().components.into_iter())
                .map(component_status)
                .collect(),
            config: ConfigStatus {
                revision: core.settings.load().revision,
                error: core.refused(),
            },
            remember: core.remember.as_ref().map(|remember| remember.status()),
            services: services
                .iter()
                .map(|state| {
                    service(
                        state,
                        discovered.iter().find(|d| d.service == *state.name()),
                        now,
                    )
                })
                .collect(),
        }
    }
}

/// One service, as it is now.
pub(crate) fn service_now(core: &Core, state: &State) -> ServiceStatus {
    let discovered = core.discovery.status();
    let discovered = discovered.iter().find(|d| d.service == *state.name());
    service(state, discovered, core.clock.now())
}

fn service(
    state: &State,
    discovered: Option<&tower_mesh_discovery::ServiceStatus>,
    now: Instant,
) -> ServiceStatus {
    let layers = state.layers();
    let counts = layers.scope.metrics.counts();
    let budget = layers.budget();
    let permits = layers.permits();
    let adaptive = layers.limit().snapshot();
    let outliers = layers.ejected();
    let ejected: HashMap<_, _> = (outliers.ejected.iter())
        .map(|ejection| ((ejection.id.as_str(), ejection.address), ejection))
        .collect();
    let health = state.health().map(|health| health.endpoints);
    let checked: HashMap<_, _> = (health.iter().flatten())
        .map(|health| ((health.id.as_str(), health.address), health))
        .collect();
    // Once, or the revision and the endpoints might be of two.
    let set = state.endpoints().current();
    ServiceStatus {
        name: state.name().to_string(),
        discovery: discovery(&set, discovered, state.recalled()),
        calls: counts.calls,
        in_flight: state.in_flight(),
        failed: counts.failed,
        refused: counts.refused,
        abandoned: counts.abandoned,
        errors: (layers.scope.errors.seen().into_iter())
            .map(|seen| error_status(seen, now))
            .collect(),
        retries: RetryStatus {
            made: budget.withdrawals,
            refused: budget.refused,
            balance: budget.balance,
        },
        hedges: layers.hedges().map(|hedges| HedgeStatus {
            delay: hedges.delay,
            sent: hedges.sent,
            won: hedges.won,
            refused: hedges.refused,
        }),
        ejection: EjectionStatus {
            ejected: outliers.ejected.len(),
            ejections: outliers.ejections,
            withheld: outliers.withheld,
        },
        limit: LimitStatus {
            limit: permits.limit,
            most: adaptive.max,
            lowered: adaptive.lowered,
            in_use: permits.in_use,
            waiting: permits.waiting,
            refused: permits.refused,
        },
        panic: layers.is_panicking(),
        breaker: layers.service_breaker().map(breaker_status),
        endpoints: set
            .endpoints()
            .iter()
            .map(|endpoint| {
                let key = (endpoint.id(), endpoint.address());
                let mut status = endpoint_status(&layers, endpoint, now);
                status.ejected = ejected
                    .get(&key)
                    .map(|ejection| ejected_status(ejection, now));
                status.check = checked.get(&key).map(|health| check_status(health));
                status
            })
            .collect(),
    }
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

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} {}, {}, up {:.0?}, {} tasks, configuration {}",
            self.name,
            self.lifecycle,
            if self.ready { "ready" } else { "not ready" },
            self.up,
            self.tasks,
            self.config.revision
        )?;
        if let Some(error) = &self.config.error {
            writeln!(f, "  a newer configuration was refused: {error}")?;
        }
        if let Some(error) = self.remember.as_ref().and_then(|it| it.error.as_ref()) {
            writeln!(f, "  the file of what is remembered: {error}")?;
        }
        for component in &self.components {
            let ComponentStatus {
                name,
                status,
                trend,
                last_error,
                ..
            } = component;
            write!(f, "  {name} is {status}, {trend}")?;
            match last_error {
                Some(error) => writeln!(f, "; last error: {error}")?,
                None => writeln!(f)?,
            }
        }
        self.services.iter().try_for_each(|service| service.fmt(f))
    }
}

impl fmt::Display for ServiceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            discovery,
            retries,
            limit,
            ..
        } = self;
        write!(
            f,
            "\n{}: {} by {}",
            self.name, discovery.resolution, discovery.source
        )?;
        if let Some(age) = discovery.age {
            write!(f, ", {age:.0?} ago")?;
        }
        if discovery.suspect {
            write!(f, ", suspect: older endpoints are held")?;
        }
        if let Some(age) = discovery.remembered {
            write!(f, ", remembered from {age:.0?} ago")?;
        }
        if let Some(failing) = discovery.failing {
            write!(f, ", failing for {failing:.0?}")?;
        }
        if let Some(error) = &discovery.error {
            write!(f, ", last error: {error}")?;
        }
        if self.panic {
            write!(f, ", panic: too many endpoints are out to be believed")?;
        }
        writeln!(
            f,
            "\n  calls {}, in flight {} of {}, waiting {}, failed {}, refused {}, abandoned {}; retries {}, refused {}",
            self.calls,
            limit.in_use,
            limit.limit,
            limit.waiting,
            self.failed,
            self.refused,
            self.abandoned,
            retries.made,
            retries.refused
        )?;
        for error in &self.errors {
            let ErrorStatus {
                kind,
                count,
                last_ago,
                sample,
                ..
            } = error;
            writeln!(
                f,
                "  {kind} x {count}, the last {last_ago:.0?} ago: {sample}"
            )?;
        }
        writeln!(
            f,
            "  {:<24} {:>10} {:>9} {:>9} {:>8} {:>9}  gate",
            "endpoint", "in flight", "attempts", "failures", "success", "mean ms"
        )?;
        self.endpoints
            .iter()
            .try_for_each(|endpoint| endpoint.fmt(f))
    }
}

impl fmt::Display for EndpointStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latency = self
            .latency_ms
            .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
        write!(
            f,
            "  {:<24} {:>10} {:>9} {:>9} {:>7.1}% {:>9}  {}",
            self.id,
            self.in_flight,
            self.attempts,
            self.failures,
            self.success * 100.0,
            latency,
            self.gate
        )?;
        if let Some(check) = &self.check {
            write!(f, "; {check}")?;
        }
        writeln!(f)
    }
}

impl fmt::Display for CheckStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(age) = self.age else {
            return f.write_str("not checked yet");
        };
        write!(f, "{} as of {age:.0?} ago", self.state)?;
        match &self.last_error {
            Some(error) if self.state != "healthy" => write!(f, ": {error}"),
            _ => Ok(()),
        }
    }
}

fn discovery(
    set: &EndpointSet,
    discovered: Option<&tower_mesh_discovery::ServiceStatus>,
    remembered: Option<Duration>,
) -> DiscoveryStatus {
    DiscoveryStatus {
        source: discovered.map_or("", |d| d.source).to_owned(),
        resolution: match set.resolution() {
            Resolution::Pending => "pending",
            Resolution::Found => "found",
            Resolution::Absent => "absent",
        },
        revision: set.revision(),
        age: discovered.and_then(|d| d.age),
        failing: discovered.and_then(|d| d.failing_for),
        suspect: remembered.is_some() || discovered.is_some_and(|d| d.suspect),
        remembered,
        error: discovered.and_then(|d| d.last_error.as_deref().map(str::to_owned)),
    }
}

fn endpoint_status(layers: &Layers, endpoint: &Endpoint, now: Instant) -> EndpointStatus {
    let (gate, load) = (endpoint.vitals().gate(), endpoint.vitals().load());
    EndpointStatus {
        id: endpoint.id().to_owned(),
        address: endpoint.address().to_string(),
        weight: endpoint.weight().get(),
        zone: endpoint.zone().map(str::to_owned),
        gate: match gate.standing(|| now) {
            Standing::Open => "open".to_owned(),
            Standing::Limited => "limited".to_owned(),
            Standing::Shut(shut) => format!("shut by {}", judge(shut.by())),
        },
        breaker: layers
            .endpoint_breaker(endpoint)
            .as_ref()
            .map(breaker_status),
        check: None,
        ejected: None,
        in_flight: load.in_flight(),
        attempts: load.attempts(),
        failures: load.failures(),
        success: load.success(),
        latency_ms: load.latency_us().map(|us| us / 1e3),
    }
}

fn ejected_status(ejection: &Ejection, now: Instant) -> EjectedStatus {
    EjectedStatus {
        reason: ejection.reason.as_str(),
        rest: ejection.until.since(now),
        times: ejection.times,
    }
}

fn check_status(health: &EndpointHealth) -> CheckStatus {
    CheckStatus {
        state: health.state.as_str(),
        age: health.age,
        took: health.took,
        last_error: health.last_error.as_deref().map(str::to_owned),
        checks: health.checks,
        failures: health.failures,
    }
}

fn component_status(component: ComponentSnapshot) -> ComponentStatus {
    ComponentStatus {
        name: component.name.to_string(),
        status: component.status.as_str(),
        optional: component.criticality == Criticality::Optional,
        trend: component.trend.as_str(),
        last_error: component.last_error.as_deref().map(str::to_owned),
    }
}

fn error_status(seen: Seen, now: Instant) -> ErrorStatus {
    ErrorStatus {
        kind: seen.kind.map_or("other", Kind::as_str),
        refused: seen.kind.is_some_and(is_refusal),
        count: seen.count,
        first_ago: now.since(seen.first),
        last_ago: now.since(seen.last),
        sample: seen.sample,
    }
}

fn judge(kind: JudgeKind) -> &'static str {
    match kind {
        JudgeKind::Health => "health",
        JudgeKind::Outlier => "outlier ejection",
        JudgeKind::Breaker => "breaker",
        _ => "drain",
    }
}

fn breaker_status(breaker: &Breaker) -> BreakerStatus {
    let snapshot = breaker.snapshot();
    BreakerStatus {
        state: snapshot.state.to_string(),
        retry_after: snapshot.retry_after(),
        opened: snapshot.opened,
    }
}
