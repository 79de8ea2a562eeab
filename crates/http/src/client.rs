//! An HTTP client for each endpoint.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response, header::HOST};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::TokioTimer,
};
use pin_project_lite::pin_project;
use tower_mesh_core::{BoxFuture, Endpoint, NewService};
use tower_service::Service;

use crate::{
    body::Body,
    idle::IdleTimeout,
    service::{Addressed, Target},
};

/// Makes an HTTP client for each endpoint, with connections of its own.
///
/// An endpoint's idle connections close when its service is dropped. What hyper runs in the background, its
/// connections, is given to the executor, so whoever owns that can see that nothing is left running.
///
/// | setting | unless said | why |
/// |---|---|---|
/// | [`connect_timeout`](Self::connect_timeout) | 1 s | linkerd's; it is not sent, so even a POST goes elsewhere |
/// | [`idle_timeout`](Self::idle_timeout) | 3 s | linkerd's; servers close idle connections after 5 s (node, uvicorn) to 75 s (nginx), and a POST that meets a closing one is lost |
/// | [`max_idle`](Self::max_idle) | 1,024 | Envoy's limit of connections, for each endpoint; a burst must not hold sockets without bound |
/// | [`body_idle_timeout`](Self::body_idle_timeout) | 30 s | a body that stands still must not hold its permit for ever; one that moves may take its time |
/// | [`protocol`](Self::protocol) | HTTP/1.1 | |
///
/// Small writes are sent at once (`TCP_NODELAY`). A request on a pooled connection that turns out closed before any of it
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
    connector: HttpConnector,
    builder: legacy::Builder,
    protocol: Protocol,
    body_idle: Duration,
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
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_IDLE: usize = 1024;
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

impl HttpEndpoints {
    /// Clients that run their connections with `executor`.
    pub fn new(executor: impl Fn(BoxFuture<'static, ()>) + Send + Sync + 'static) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut builder = Client::builder(Executor(Arc::new(executor)));
        builder
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new());
        Self {
            connector,
            builder,
            protocol: Protocol::default(),
            body_idle: BODY_IDLE_TIMEOUT,
        }
        .connect_timeout(CONNECT_TIMEOUT)
        .idle_timeout(IDLE_TIMEOUT)
        .max_idle(MAX_IDLE)
    }

    /// Sets how long it may take to connect.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connector.set_connect_timeout(Some(timeout));
        self
    }

    /// Sets after what time without a request a connection is closed.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.builder.pool_idle_timeout(timeout);
        self
    }

    /// Sets how many idle connections to one endpoint are kept; with zero each request makes its own.
    #[must_use]
    pub fn max_idle(mut self, connections: usize) -> Self {
        self.builder.pool_max_idle_per_host(connections);
        self
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
        let target = Target::of(endpoint);
        let client = HttpClient(Arc::new(Inner {
            client: self.builder.build(self.connector.clone()),
            host: match self.protocol {
                Protocol::Http1 => Some(host(&target)),
                Protocol::Http2 => None,
            },
            body_idle: self.body_idle,
        }));
        Addressed::to(target, client)
    }
}

fn host(target: &Target) -> HeaderValue {
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
    client: Client<HttpConnector, Body>,
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
