//! What checks have found, for a person or a dashboard.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tower_mesh_core::{Endpoints, Instant, ServiceName};

use crate::checks::{judge::HealthJudge, verdict::HealthState};

/// What checks have found of one service; from [`HealthChecker::status`](crate::HealthChecker::status).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ServiceHealth {
    /// The service.
    pub service: ServiceName,
    /// Its endpoints, in discovery's order.
    pub endpoints: Vec<EndpointHealth>,
}

/// What checks have found of one endpoint.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EndpointHealth {
    /// The endpoint's id.
    pub id: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What they have found.
    pub state: HealthState,
    /// How old the last answer is; nothing before the first.
    pub age: Option<Duration>,
    /// How long the last answer took.
    pub took: Option<Duration>,
    /// Why the last check that failed has failed, cut to 256 bytes.
    pub last_error: Option<Arc<str>>,
    /// How many checks have ended.
    pub checks: u64,
    /// How many of them have failed.
    pub failures: u64,
}

impl ServiceHealth {
    pub(crate) fn new(endpoints: &Endpoints, now: Instant) -> Self {
        let set = endpoints.current();
        let health = (set.endpoints().iter())
            .filter_map(|endpoint| Some(HealthJudge::of(endpoint)?.health(endpoint, now)));
        Self {
            service: endpoints.service().clone(),
            endpoints: health.collect(),
        }
    }

    /// How old the oldest answer is; nothing while one of the endpoints has not been checked.
    pub fn age(&self) -> Option<Duration> {
        let ages: Option<Vec<_>> = self.endpoints.iter().map(|endpoint| endpoint.age).collect();
        ages?.into_iter().max()
    }

    /// How many endpoints are in this state.
    pub fn count(&self, state: HealthState) -> usize {
        let is_so = |endpoint: &&EndpointHealth| endpoint.state == state;
        self.endpoints.iter().filter(is_so).count()
    }
}
