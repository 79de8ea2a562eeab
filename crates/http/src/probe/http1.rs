//! Whether an endpoint answers a path as it should.

use std::{future::Future, ops::RangeInclusive};

use http::{
    HeaderValue, Request,
    header::{HOST, USER_AGENT},
    uri::PathAndQuery,
};
use hyper::client::conn::http1;
use tower_mesh_core::Endpoint;

use crate::{
    Body,
    client::{HttpEndpoints, Protocol, host},
    probe::{ProbeError, Way, beside},
    service::Target,
};

/// Finds an endpoint well if it answers a path with a status that is expected.
///
/// Each check is a `GET` over HTTP/1.1, on a connection of its own: one that has been open for long says that the process
/// was well when it was made. The head of the answer is all that is read, at most 16 KiB; the connection ends with the
/// check, whatever else is sent.
///
/// | setting | unless said | from |
/// |---|---|---|
/// | [`expect`](Self::expect) | 200 to 299 | Consul; Envoy takes 200 alone, Kubernetes up to 399 |
/// | [`host`](Self::host) | the endpoint's address, over TLS the name that it proves | virtual hosts need theirs |
/// | [`port`](Self::port) | the endpoint's own | |
/// | [`over`](Self::over) | plain text | |
///
/// It has no time limit: whoever checks has.
///
/// # Errors
///
/// [`ProbeError`]. A status that is not expected [counts at once](ProbeError::is_definite), as in Envoy.
///
/// # Cancel safety
///
/// Dropping a check closes its connection.
///
/// # Example
///
/// As a check of `tower_mesh_health`:
///
/// ```
/// use http::uri::PathAndQuery;
/// use tower_mesh_core::{BoxError, Endpoint};
/// use tower_mesh_http::HttpProbe;
/// # struct Unhealthy(String);
/// # impl From<Unhealthy> for BoxError { fn from(why: Unhealthy) -> Self { why.0.into() } }
/// # impl Unhealthy { fn new(why: &str) -> Self { Self(why.to_owned()) } }
///
/// let probe = HttpProbe::new(PathAndQuery::from_static("/healthz")).expect(200..=204);
/// let check = move |endpoint: Endpoint| {
///     let answer = probe.check(&endpoint);
///     async move {
///         answer.await.map_err(|error| match error.is_definite() {
///             true => BoxError::from(Unhealthy::new(&error.to_string())),
///             false => error.into(),
///         })
///     }
/// };
/// # let _ = check;
/// ```
#[derive(Clone, Debug)]
pub struct HttpProbe {
    path: PathAndQuery,
    expected: RangeInclusive<u16>,
    host: Option<HeaderValue>,
    way: Way,
}

/// What a head may take; hyper allows no less than 8 KiB.
const MOST_HEAD: usize = 16 * 1024;

impl HttpProbe {
    /// Asks for `path`.
    pub const fn new(path: PathAndQuery) -> Self {
        Self {
            path,
            expected: 200..=299,
            host: None,
            way: Way::new(),
        }
    }

    /// Takes these statuses for well.
    #[must_use]
    pub fn expect(mut self, statuses: RangeInclusive<u16>) -> Self {
        self.expected = statuses;
        self
    }

    /// Asks for it at this host.
    #[must_use]
    pub fn host(mut self, host: HeaderValue) -> Self {
        self.host = Some(host);
        self
    }

    /// Asks this port of the endpoint's host.
    #[must_use]
    pub const fn port(mut self, port: u16) -> Self {
        self.way.port = Some(port);
        self
    }

    /// Asks over what these clients call endpoints over: if that is TLS, over nothing else, by HTTP/1.1, and the endpoint
    /// has to prove the same name.
    #[must_use]
    pub fn over(mut self, endpoints: &HttpEndpoints) -> Self {
        self.way.over(endpoints, Protocol::Http1);
        self
    }

    /// Asks `endpoint`. It has to be polled on a tokio runtime with I/O.
    pub fn check(
        &self,
        endpoint: &Endpoint,
    ) -> impl Future<Output = Result<(), ProbeError>> + Send + 'static + use<> {
        let (way, to) = (self.way.clone(), self.way.to(endpoint));
        let (request, expected) = (self.request(&to), self.expected.clone());
        async move {
            let stream = way.connect(to.address()).await?;
            let (mut sender, connection) = http1::Builder::new()
                .max_buf_size(MOST_HEAD)
                .handshake(stream)
                .await
                .map_err(ProbeError::exchange)?;
            let response = beside(connection, sender.send_request(request)).await;
            let status = response.map_err(ProbeError::exchange)?.status();
            if expected.contains(&status.as_u16()) {
                Ok(())
            } else {
                Err(ProbeError::status(status))
            }
        }
    }

    fn request(&self, to: &Target) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = self.path.clone().into();
        let host = self.host.clone().unwrap_or_else(|| host(to));
        let headers = request.headers_mut();
        // No `Connection: close`: a server (hyper's) that has read it reads no more, and so works on for a check that has
        // long been given up.
        headers.insert(HOST, host);
        headers.insert(USER_AGENT, HeaderValue::from_static("tower-mesh-probe"));
        request
    }
}
