//! Whether a port answers.

use tokio::net::TcpStream;
use tower_mesh_core::{BoxError, BoxFuture, Endpoint};

use crate::checks::HealthCheck;

/// Finds an endpoint well if a TCP connection to it can be made; the connection is closed at once.
///
/// It says that somebody listens there, and no more: for services that fail while their port answers, keep an
/// ejection's [`Readmission::TimeAlone`](crate::Readmission::TimeAlone) beside it.
///
/// # Panics
///
/// As a check: outside a tokio runtime with I/O it fails.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpCheck {
    port: Option<u16>,
}

impl TcpCheck {
    /// Connects to the endpoint's own port.
    pub const fn new() -> Self {
        Self { port: None }
    }

    /// Connects to this port of the endpoint's host.
    #[must_use]
    pub const fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }
}

impl HealthCheck for TcpCheck {
    fn check(&self, endpoint: &Endpoint) -> BoxFuture<'static, Result<(), BoxError>> {
        let mut address = endpoint.address();
        if let Some(port) = self.port {
            address.set_port(port);
        }
        Box::pin(async move {
            TcpStream::connect(address).await?;
            Ok(())
        })
    }
}
