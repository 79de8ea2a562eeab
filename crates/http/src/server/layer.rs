//! The layer of a server.

use std::{sync::Arc, time::Duration};

use tower_layer::Layer;
use tower_mesh_core::{Clock, PerCall, Priority, Recorder, Rng};

use super::{
    counts::{Counts, ServerCounts},
    health::Readiness,
    quiet::Quiet,
    service::Server,
};

/// Answers whatever comes: with what the handler says, or with what a caller has to know when the handler says nothing.
///
/// What happens to a request, in this order:
///
/// 1. **Health** is answered at once: `GET /health/live` is 200 as long as the process runs, `GET /health/ready` is 200 or
///    a 503 with [reasons](Self::ready_unless); `grpc.health.v1.Health/Check` is `SERVING` or `NOT_SERVING`, of the process,
///    whatever [service](Self::grpc_services) it asks for, and `Watch` says each change within half a second, and ends
///    (`UNAVAILABLE`) when the process is on its way out. None of them is counted, limited or traced.
/// 2. **Its deadline** is [read](crate::timeout_of): one that nobody can read is refused (400, `INVALID_ARGUMENT`), and so
///    is one that has passed (504, `DEADLINE_EXCEEDED`). The handler sees neither.
/// 3. **Its context**, trace and priority, is [read](crate::context); a priority only as far as it is
///    [believed](Self::believe_priority), and the handler sees what was believed.
/// 4. **The handler** runs until then, or as long as [`timeout`](Self::timeout) says, if that is less. Calls that it makes
///    through a mesh [inherit](super::Inherited) what is left, and the context. After that its future is dropped and the
///    answer is 504, `DEADLINE_EXCEEDED`. A body that streams may take longer.
/// 5. **An error or a panic** becomes an answer in the protocol of the request. The connection and other requests are not
///    touched.
///
/// | error beneath | HTTP: `application/problem+json` | gRPC: trailers only |
/// |---|---|---|
/// | [`Overloaded`](tower_mesh_core::Kind::Overloaded) | 503 | `RESOURCE_EXHAUSTED` |
/// | `DeadlineExceeded` | 504 | `DEADLINE_EXCEEDED` |
/// | `Connect`, `Transport`, `AttemptsExhausted` | 502 | `UNAVAILABLE` |
/// | [`Denied`](super::Denied): unauthenticated; forbidden | 401; 403 | `UNAUTHENTICATED`; `PERMISSION_DENIED` |
/// | any other [`Refusal`](tower_mesh_core::Refusal) | 503 | `UNAVAILABLE` |
/// | anything else, a panic | 500 | `INTERNAL` |
///
/// When to come back, if the error knows, stands in `Retry-After` and `grpc-retry-pushback-ms`; that what was
/// tried in vain beneath is not to be tried again, whichever response the handler makes of that, in [`x-mesh-retry`](crate::context::RETRY_HEADER) and, as -1, the latter. A caller is told the kind
/// and an id; the error itself goes to the log with the same id, and nowhere else. With the feature `grpc` both stand in
/// `grpc-status-details-bin` too, as Google's `ErrorInfo` and `RetryInfo`. Of a flood of errors ten a second are logged, and
/// how many were not; refusals only where `debug` is.
///
/// Each request has a span `serve` (`info`), with the trace that it belongs to and which attempt it is. Its `Authorization`
/// is marked as sensitive, so that who prints the request does not print that.
///
/// It serves an axum `Router` and a tonic `Server` alike: its error is [`Infallible`](std::convert::Infallible), the
/// handler's body passes through unchanged, and a healthy request costs no allocation of its own. Put limits beneath it:
/// they refuse with an error, and this makes the answer of it. What stands above it must not fail.
///
/// # Differences from tower-http
///
/// tower-http has a layer for each of these, none of which knows gRPC's way to say no: under tonic an error of a layer
/// resets the stream, unless it holds a `tonic::Status`.
///
/// # Clone
///
/// One layer value is one set of counts, however many services it makes; clones share them.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use http::{Request, Response, StatusCode};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_mesh_http::{Body, server::ServerLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Infallible> {
/// let server = ServiceBuilder::new()
///     .layer(ServerLayer::new())
///     .service(service_fn(async |_: Request<Body>| {
///         Ok::<_, Infallible>(Response::new(Body::from("hello")))
///     }));
///
/// let late = Request::get("/").header("x-request-timeout-ms", "0").body(Body::empty());
/// let response = server.oneshot(late.unwrap()).await?;
/// assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ServerLayer {
    settings: Settings,
    counts: Arc<Counts>,
}

/// What the service needs of its layer, in one piece.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) clock: Clock,
    pub(super) rng: Rng,
    pub(super) timeout: Option<Duration>,
    pub(super) believed: Priority,
    /// Names of services that gRPC's health knows; none: all are the process.
    pub(super) grpc_services: Option<Arc<[String]>>,
    pub(super) quiet: Arc<Quiet>,
    /// None: health is the handler's.
    pub(super) readiness: Option<Readiness>,
}

impl Default for ServerLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerLayer {
    /// Requests may take as long as their senders wait, and the process is always ready.
    pub fn new() -> Self {
        Self {
            settings: Settings {
                clock: Clock::default(),
                rng: Rng::default(),
                timeout: None,
                believed: Priority::Default,
                grpc_services: None,
                quiet: Arc::default(),
                readiness: Some(Readiness::new(Vec::new)),
            },
            counts: Arc::default(),
        }
    }

    /// Lets no request take longer, until its answer begins; unless said only its sender's deadline ends it.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// Believes a request that says how much it matters ([`PRIORITY_HEADER`](crate::context::PRIORITY_HEADER)) up to here:
    /// what claims more counts as this.
    ///
    /// Up to `Default` unless said: anybody may say that a request matters less, and takes nothing from anybody. Let it be
    /// `Critical` only where all who can reach the server are trusted to say so.
    #[must_use]
    pub fn believe_priority(mut self, most: Priority) -> Self {
        self.settings.believed = most;
        self
    }

    /// The process is not ready while `reasons` gives any. They are told to whoever asks: words for kinds of reasons, not
    /// names or texts. `draining` and `stopped` say that it is on its way out, and end what watches its health.
    #[must_use]
    pub fn ready_unless(
        mut self,
        reasons: impl Fn() -> Vec<&'static str> + Send + Sync + 'static,
    ) -> Self {
        self.settings.readiness = Some(Readiness::new(reasons));
        self
    }

    /// Names the services that gRPC's health knows (`shop.Orders`): of any other it says that there is none. Unless said, each
    /// name is that of the process.
    #[must_use]
    pub fn grpc_services<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.settings.grpc_services = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Leaves the health paths to the handler.
    #[must_use]
    pub fn without_health(mut self) -> Self {
        self.settings.readiness = None;
        self
    }

    /// Takes time from `clock`; by default from tokio's.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Takes the ids of failures from here: for tests.
    #[must_use]
    pub fn rng(mut self, rng: Rng) -> Self {
        self.settings.rng = rng;
        self
    }

    /// Also counts with `recorder`: `tower_mesh_server_requests_total` by `outcome`, and
    /// `tower_mesh_server_request_duration_nanoseconds` until the answer begins. The counts begin anew.
    #[must_use]
    pub fn recorder(mut self, recorder: &dyn Recorder) -> Self {
        self.counts = Arc::new(Counts::recorded_by(recorder));
        self
    }

    /// What was counted so far.
    pub fn counts(&self) -> ServerCounts {
        self.counts.snapshot()
    }

    /// Serves with `inner`, which must be always ready: it is called without being asked, and not cloned for each request.
    ///
    /// Right for a service that reserves nothing in `poll_ready` and begins nothing before its future is polled, as all of
    /// tower-mesh's.
    pub fn over<S>(&self, inner: S) -> Server<S> {
        Server::new(inner, self.settings.clone(), Arc::clone(&self.counts))
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = Server<PerCall<S>>;

    fn layer(&self, inner: S) -> Self::Service {
        self.over(PerCall::new(inner))
    }
}
