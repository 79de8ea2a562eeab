//! What the mesh itself has counted, out of its status.

use std::net::SocketAddr;

use tower_mesh::Mesh;

/// What the mesh has counted for the service.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) retries: u64,
    /// Retries that the budget did not allow.
    pub(crate) retries_refused: u64,
    /// Calls that the mesh refused before any server could fail them.
    pub(crate) calls_refused: u64,
    pub(crate) endpoints: Vec<EndpointCounts>,
}

/// What the mesh has counted for one endpoint.
pub(crate) struct EndpointCounts {
    address: String,
    pub(crate) attempts: u64,
    pub(crate) failures: u64,
    /// The state of its breaker.
    pub(crate) breaker: String,
}

impl Counts {
    /// What the letters of [`breakers`](Self::breakers) mean.
    pub(crate) const LEGEND: &str = "o open  h half open  r ramping up";

    pub(crate) fn of(mesh: &Mesh) -> Self {
        let status = mesh.status();
        let Some(service) = status.services.into_iter().next() else {
            return Self::default();
        };
        let endpoints = service
            .endpoints
            .into_iter()
            .map(|endpoint| EndpointCounts {
                address: endpoint.address,
                attempts: endpoint.attempts,
                failures: endpoint.failures,
                breaker: endpoint
                    .breaker
                    .map_or_else(|| "-".to_owned(), |breaker| breaker.state),
            });
        Self {
            retries: service.retries.made,
            retries_refused: service.retries.refused,
            calls_refused: service.refused,
            endpoints: endpoints.collect(),
        }
    }

    pub(crate) fn of_server(&self, server: SocketAddr) -> Option<&EndpointCounts> {
        let address = server.to_string();
        self.endpoints.iter().find(|e| e.address == address)
    }

    /// A letter a server: `.` is closed, else the first letter of the state of its breaker.
    pub(crate) fn breakers(&self, servers: &[SocketAddr]) -> String {
        let letter = |&server: &SocketAddr| match self.of_server(server) {
            Some(endpoint) if endpoint.breaker != "closed" => {
                endpoint.breaker.chars().next().unwrap_or('?')
            }
            _ => '.',
        };
        servers.iter().map(letter).collect()
    }
}
