//! Why calls to a service go where they go, and why they are refused.

use std::fmt;

use tower_mesh_balance::Explanation;

use crate::{
    mesh::Core,
    service::State,
    status::{ErrorStatus, ServiceStatus, service_now},
};

/// Why each endpoint of a service is or is not picked now, and what its last callers were given for an error.
///
/// It prints as a text that a person can act on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explained {
    /// What the balancer sees.
    pub endpoints: Explanation,
    /// What stands above it: discovery, limit, budget, and the last errors.
    pub service: ServiceStatus,
}

impl Explained {
    pub(crate) fn of(core: &Core, state: &State) -> Self {
        Self {
            endpoints: state.layers().explain(),
            service: service_now(core, state),
        }
    }

    /// The errors that the mesh itself refused calls with, the latest first.
    pub fn refusals(&self) -> impl Iterator<Item = &ErrorStatus> {
        self.service.errors.iter().filter(|error| error.refused)
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServiceStatus {
            discovery, limit, ..
        } = &self.service;
        self.endpoints.fmt(f)?;
        if let Some(error) = &discovery.error {
            writeln!(f, "discovery: {error}; the last known endpoints are used")?;
        }
        if discovery.suspect {
            writeln!(
                f,
                "discovery: older endpoints are held, the last answer had too few"
            )?;
        }
        writeln!(
            f,
            "permits: {} of {} in use, {} calls wait",
            limit.in_use, limit.limit, limit.waiting
        )?;
        for error in self.refusals() {
            writeln!(
                f,
                "refused {} times, the last {:.0?} ago: {}",
                error.count, error.last_ago, error.sample
            )?;
        }
        Ok(())
    }
}
