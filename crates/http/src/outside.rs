//! A client of what is no service of the mesh.

use std::{fmt, future::Future};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, Client};

use crate::{body::Body, client::HttpEndpoints, connect::Outward, idle::IdleTimeout};

/// A plain client that goes where a request's URI says, by DNS; with the limits of the [`HttpEndpoints`] it was made of, and
/// nothing else that a mesh does.
///
/// # Clone
///
/// A clone has the same connections.
#[derive(Clone)]
pub struct OutsideClient {
    client: Client<Outward, Body>,
    body_idle: std::time::Duration,
}

impl HttpEndpoints {
    /// A client of hosts that are no endpoints, in plain text.
    #[must_use]
    pub fn outside(&self) -> OutsideClient {
        self.going(
            #[cfg(feature = "tls")]
            None,
        )
    }

    /// The same, which trusts `tls` for https. A host has to prove its own name.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn outside_with(&self, tls: &crate::Tls) -> OutsideClient {
        self.going(Some(tls.clone()))
    }

    fn going(&self, #[cfg(feature = "tls")] tls: Option<crate::Tls>) -> OutsideClient {
        let mut tcp = self.dial.tcp.clone();
        // What is spoken over it is ours to see to.
        tcp.enforce_http(false);
        let outward = Outward {
            tcp,
            timeout: self.dial.timeout,
            #[cfg(feature = "tls")]
            tls,
        };
        let mut builder = self.builder.clone();
        builder.http2_only(false);
        OutsideClient {
            client: builder.build(outward),
            body_idle: self.body_idle,
        }
    }
}

impl OutsideClient {
    /// Sends `request` to the host that its URI names.
    ///
    /// # Errors
    ///
    /// What hyper's client says.
    pub fn send(
        &self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<IdleTimeout<Incoming>>, legacy::Error>> + Send + use<>
    {
        let (answer, idle) = (self.client.request(request), self.body_idle);
        async move { Ok(answer.await?.map(|body| IdleTimeout::new(body, idle))) }
    }
}

impl fmt::Debug for OutsideClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutsideClient").finish_non_exhaustive()
    }
}
