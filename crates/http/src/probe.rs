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
use crate::{
    client::{HttpEndpoints, Protocol},
    connect::Stream,
    service::Target,
};

/// How a probe comes to an endpoint.
#[derive(Clone, Debug, Default)]
struct Way {
    port: Option<u16>,
    #[cfg(feature = "tls")]
    tls: Option<crate::tls::Identity>,
}

impl Way {
    const fn new() -> Self {
        Self {
            port: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// As these clients come to theirs.
    #[cfg_attr(not(feature = "tls"), allow(unused_variables, clippy::unused_self))]
    fn over(&mut self, endpoints: &HttpEndpoints, speaking: Protocol) {
        #[cfg(feature = "tls")]
        {
            let tls = endpoints.dial.tls.clone();
            self.tls = tls.map(|identity| identity.speaking(speaking));
        }
    }

    fn to(&self, endpoint: &Endpoint) -> Target {
        let mut address = endpoint.address();
        if let Some(port) = self.port {
            address.set_port(port);
        }
        #[cfg(feature = "tls")]
        if let Some(identity) = &self.tls {
            return Target::secure(address, &identity.name());
        }
        Target::of(address)
    }

    async fn connect(self, address: SocketAddr) -> Result<Stream, ProbeError> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| ProbeError::connect(error.into()))?;
        // It delays nothing to fail at this.
        let _ = stream.set_nodelay(true);
        #[cfg(feature = "tls")]
        if let Some(identity) = &self.tls {
            let tls = identity.connect(stream).await;
            return tls
                .map(Stream::tls)
                .map_err(|error| ProbeError::connect(error.into()));
        }
        Ok(Stream::plain(stream))
    }
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
