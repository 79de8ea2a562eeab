//! An HTTP client for each endpoint.

use std::{
    fmt,
    future::Future,
    num::NonZeroUsize,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response, Uri, header::HOST, uri::Scheme};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::TokioTimer,
};
use pin_project_lite::pin_project;
use tokio::sync::Semaphore;
use tower_mesh_core::{BoxFuture, Endpoint, NewService};
use tower_service::Service;

use crate::{
    body::Body,
    connect::{Connector, Dial},
    idle::IdleTimeout,
    service::{Addressed, Target, authority},
};

/// Makes an HTTP client for each endpoint, with connections of its own.
///
/// An endpoint's idle connections close when its service is dropped. What hyper runs in the background, its
/// connections, is given to the executor, so whoever owns that can see that nothing is left running.
///
/// | setting | unless said | why |
/// |---|---|---|
/// | [`connect_timeout`](Self::connect_timeout) | 1 s | linkerd's, TLS included; it is not sent, so even a POST goes elsewhere |
/// | [`idle_timeout`](Self::idle_timeout) | 3 s | linkerd's; servers close idle connections after 5 s (node, uvicorn) to 75 s (nginx), and a POST that meets a closing one is lost |
/// | [`max_idle`](Self::max_idle) | 1,024 | Envoy's limit of connections, for each endpoint; a burst must not hold sockets without bound |
/// | [`max_connections`](Self::max_connections) | 1,024 | Envoy's, for each endpoint |
/// | [`warm_up`](Self::warm_up) | no | all clients of a fleet would connect to all of it |
/// | [`body_idle_timeout`](Self::body_idle_timeout) | 30 s | a body that stands still must not hold its permit for ever; one that moves may take its time |
/// | [`protocol`](Self::protocol) | HTTP/1.1 | |
/// | `tls` (of the feature `tls`) | plain text | |
///
/// A connection on which what was sent is not acknowledged for 20 s is dead (`TCP_USER_TIMEOUT`, gRPC's value; on Linux):
/// a host that vanishes without a word does not keep the one connection of HTTP/2 busy until the system gives up. Small writes are sent at once (`TCP_NODELAY`). A request on a pooled connection that turns out closed before any of it
/// was written goes to another connection of the same endpoint by itself.
///
/// # Clone
///
/// A clone has the same settings and the same executor; clients share nothing else.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_mesh_http::HttpEndpoints;
///
/// # #[allow(clippy::disallowed_methods)]
/// let endpoints = HttpEndpoints::new(|task| drop(tokio::spawn(task)))
///     .connect_timeout(Duration::from_millis(300));
/// # let _ = endpoints;
/// ```
#[derive(Clone)]
pub struct HttpEndpoints {
    pub(crate) dial: Dial,
    pub(crate) builder: legacy::Builder,
    executor: Executor,
    protocol: Protocol,
    idle: Duration,
    pub(crate) body_idle: Duration,
    warm: bool,
    silent: bool,
}

/// What a client speaks with an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/1.1, one request at a time on each connection.
    #[default]
    Http1,
    /// HTTP/2 without negotiation ("prior knowledge"), all requests on one connection.
    Http2,
    /// What the two agree on by TLS (ALPN), HTTP/2 before HTTP/1.1; without TLS it is HTTP/1.1.
    Negotiated,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_IDLE: usize = 1024;
const MAX_CONNECTIONS: usize = 1024;
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

impl HttpEndpoints {
    /// Clients that run their connections with `executor`.
    pub fn new(executor: impl Fn(BoxFuture<'static, ()>) + Send + Sync + 'static) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let executor = Executor(Arc::new(executor));
        let mut builder = Client::builder(executor.clone());
        builder
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new());
        let dial = Dial {
            tcp,
            timeout: CONNECT_TIMEOUT,
            most: MAX_CONNECTIONS,
            #[cfg(feature = "tls")]
            tls: None,
        };
        Self {
            dial,
            builder,
            executor,
            protocol: Protocol::default(),
            idle: IDLE_TIMEOUT,
            body_idle: BODY_IDLE_TIMEOUT,
            warm: false,
            silent: false,
        }
        .idle_timeout(IDLE_TIMEOUT)
        .max_idle(MAX_IDLE)
    }

    /// Sets how long it may take to connect, TLS included.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.dial.timeout = timeout;
        self
    }

    /// Sets after what time without a request a connection is closed.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.builder.pool_idle_timeout(timeout);
        self.idle = timeout;
        self
    }

    /// Sets how many idle connections to one endpoint are kept; with zero each request makes its own.
    #[must_use]
    pub fn max_idle(mut self, connections: usize) -> Self {
        self.builder.pool_max_idle_per_host(connections);
        self
    }

    /// Sets how many connections to one endpoint there may be. A request that finds all of them in use waits for one, as long
    /// as it may take to connect, and is then refused without having been sent.
    #[must_use]
    pub fn max_connections(mut self, connections: NonZeroUsize) -> Self {
        self.dial.most = connections.get().min(Semaphore::MAX_PERMITS);
        self
    }

    /// Connects to an endpoint when its service is made, so that its first request need not wait for that. The connection is
    /// given up when no request comes within the [idle time](Self::idle_timeout).
    #[must_use]
    pub fn warm_up(mut self) -> Self {
        self.warm = true;
        self
    }

    /// Writes nothing of the mesh's own into requests, see [`Addressed::without_context`].
    #[must_use]
    pub fn without_context(mut self) -> Self {
        self.silent = true;
        self
    }

    /// Calls endpoints over TLS, and nothing else. Each has to prove that it is `name`: its address, which a registry says, is
    /// no proof. What stands in `Host` and `:authority` unless a caller says otherwise is that name, too.
    ///
    /// An endpoint that does not prove it, or speaks no TLS, cannot be connected to: it has a failure, and the request, which was not
    /// sent, may go elsewhere. A server that refuses the client's certificate says so after the handshake (TLS 1.3), when a
    /// request may have been sent.
    ///
    /// # Errors
    ///
    /// [`InvalidTls`](crate::InvalidTls) if `name` is no name of DNS; an IP address is none.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: &crate::Tls, name: &str) -> Result<Self, crate::InvalidTls> {
        self.dial.tls = Some(crate::tls::Identity::new(tls, name)?);
        Ok(self)
    }

    /// Sets how long a response's body may stand still while it is waited for; then it fails, and counts as a failure.
    #[must_use]
    pub fn body_idle_timeout(mut self, timeout: Duration) -> Self {
        self.body_idle = timeout;
        self
    }

    /// Sets what the clients speak.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.builder.http2_only(protocol == Protocol::Http2);
        self.protocol = protocol;
        self
    }
}

impl NewService<Endpoint> for HttpEndpoints {
    type Service = Addressed<HttpClient>;

    fn new_service(&self, endpoint: &Endpoint) -> Addressed<HttpClient> {
        let (target, dial) = (self.target(endpoint), self.dial());
        let at = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(authority(endpoint.address()))
            .path_and_query("/")
            .build()
            .expect("scheme, authority and path are all there");
        let connector = Connector::new(dial, at);
        if self.warm {
            (self.executor.0)(Box::pin(connector.warm(self.idle)));
        }
        let client = HttpClient(Arc::new(Inner {
            client: self.builder.build(connector),
            host: match self.protocol {
                Protocol::Http1 => Some(host(&target)),
                Protocol::Http2 | Protocol::Negotiated => None,
            },
            body_idle: self.body_idle,
        }));
        let service = Addressed::to(Arc::new(target), client);
        if self.silent {
            service.without_context()
        } else {
            service
        }
    }
}

impl HttpEndpoints {
    #[cfg(feature = "tls")]
    fn target(&self, endpoint: &Endpoint) -> Target {
        match &self.dial.tls {
            Some(identity) => Target::secure(endpoint.address(), &identity.name()),
            None => Target::of(endpoint.address()),
        }
    }

    #[cfg(not(feature = "tls"))]
    #[allow(clippy::unused_self)] // As it is with TLS.
    fn target(&self, endpoint: &Endpoint) -> Target {
        Target::of(endpoint.address())
    }

    fn dial(&self) -> Dial {
        #[allow(unused_mut)] // By TLS.
        let mut dial = self.dial.clone();
        #[cfg(feature = "tls")]
        {
            dial.tls = dial.tls.map(|identity| identity.speaking(self.protocol));
        }
        dial
    }
}

pub(crate) fn host(target: &Target) -> HeaderValue {
    HeaderValue::from_str(target.authority().as_str()).expect("an authority is a header value")
}

impl fmt::Debug for HttpEndpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpEndpoints")
            .field("client", &self.builder)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// hyper-util's client, for one endpoint; made by [`HttpEndpoints`].
///
/// # Clone
///
/// A clone is the same client and has the same connections.
#[derive(Clone)]
pub struct HttpClient(Arc<Inner>);

struct Inner {
    client: Client<Connector, Body>,
    /// What a request without a `Host` gets in HTTP/1.1: made once, where hyper would format it for each request.
    host: Option<HeaderValue>,
    body_idle: Duration,
}

impl Service<Request<Body>> for HttpClient {
    type Response = Response<IdleTimeout<Incoming>>;
    type Error = legacy::Error;
    type Future = ClientFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), legacy::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> ClientFuture {
        let headers = request.headers_mut();
        match &self.0.host {
            Some(host) => {
                headers.entry(HOST).or_insert_with(|| host.clone());
            }
            // RFC 9113, 8.3.1: `:authority` says it, and the two must not differ.
            None => {
                headers.remove(HOST);
            }
        }
        ClientFuture {
            response: self.0.client.request(request),
            body_idle: self.0.body_idle,
        }
    }
}

pin_project! {
    /// The response of an [`HttpClient`].
    ///
    /// # Cancel safety
    ///
    /// As that of hyper-util's client: dropping it ends the request.
    #[derive(Debug)]
    pub struct ClientFuture {
        #[pin]
        response: legacy::ResponseFuture,
        body_idle: Duration,
    }
}

impl Future for ClientFuture {
    type Output = Result<Response<IdleTimeout<Incoming>>, legacy::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let idle = *this.body_idle;
        let response = this.response.poll(cx);
        response.map_ok(|response| response.map(|body| IdleTimeout::new(body, idle)))
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

/// Any executor, as one type.
#[derive(Clone)]
struct Executor(Arc<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>);

impl hyper::rt::Executor<BoxFuture<'static, ()>> for Executor {
    fn execute(&self, task: BoxFuture<'static, ()>) {
        (self.0)(task);
    }
}
