//! How a mesh is now, gathered from its parts.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tower_mesh_breaker::Breaker;
use tower_mesh_core::{Endpoint, EndpointSet, Instant, JudgeKind, Kind, Resolution, Standing};
use tower_mesh_discovery::ServiceStatus as Discovered;
use tower_mesh_health::{ComponentSnapshot, Criticality, Ejection, EndpointHealth};

use super::{
    BreakerStatus, CheckStatus, ComponentStatus, ConfigStatus, DiscoveryStatus, EjectedStatus,
    EjectionStatus, EndpointStatus, ErrorStatus, HedgeStatus, LimitStatus, RetryStatus,
    ServiceStatus, Status,
};
use crate::{errors::Seen, mesh::Core, metrics::is_refusal, service::State, stack::Layers};

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

fn service(state: &State, discovered: Option<&Discovered>, now: Instant) -> ServiceStatus {
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

fn discovery(
    set: &EndpointSet,
    discovered: Option<&Discovered>,
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
