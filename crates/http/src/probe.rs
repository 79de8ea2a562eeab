//! Whether an endpoint says that it is well: over HTTP, and by gRPC's health service.

mod error;
mod grpc;
mod http1;
pub(crate) mod message;

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
};

use tokio::net::TcpStream;
use tower_mesh_core::Endpoint;

pub use self::{error::ProbeError, grpc::GrpcProbe, http1::HttpProbe};

/// Where a probe of `endpoint` connects to.
fn address(endpoint: &Endpoint, port: Option<u16>) -> SocketAddr {
    let mut address = endpoint.address();
    if let Some(port) = port {
        address.set_port(port);
    }
    address
}

async fn connect(address: SocketAddr) -> Result<TcpStream, ProbeError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| ProbeError::connect(error.into()))?;
    // It delays nothing to fail at this.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// What `exchange` gives, with its connection run beside it: both end together, and nothing has to be spawned.
async fn beside<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    let mut ended = false;
    poll_fn(|cx| {
        // How it ended, the exchange is told by what it waits for.
        ended = ended || connection.as_mut().poll(cx).is_ready();
        exchange.as_mut().poll(cx)
    })
    .await
}
