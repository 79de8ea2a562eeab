//! This process as a server of the mesh.

mod connections;
mod error;
mod serve;
mod stop;

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::net::TcpListener;
use tower_layer::Layer;
use tower_mesh_core::{ClassifyErrors, PerCall, Priority};
use tower_mesh_http::{
    CompleteOnBody, Meter, ReportLoad, ReportLoadLayer,
    server::{Authorize, AuthorizeLayer, Authorized, Server, ServerCounts, ServerLayer},
};
use tower_mesh_limit::{
    Adaptive, AdaptiveLimitLayer, AdaptiveSnapshot, Bulkhead, BulkheadLayer, adaptive::Sampled,
};

pub use self::{error::ServeError, serve::Serve};
use crate::{
    config::ServerConfig,
    lifecycle::Lifecycle,
    mesh::{Core, Mesh},
};

/// As of the calls to a service: the cap of Envoy and gRPC.
const MAX_IN_FLIGHT: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// What CoDel takes for a queue that stands: who waits longer waits because there is too much to do, not for a moment.
const CRITICAL_WAITS: Duration = Duration::from_millis(100);

/// What the servers of this process have in common.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    draining: AtomicBool,
    servers: AtomicUsize,
}

impl Serving {
    /// Whether this process is on its way out: it serves, but wants no new requests.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

impl Core {
    /// Why this process is not ready, in words that anybody may hear.
    fn unready(&self) -> Vec<&'static str> {
        let mut reasons = Vec::new();
        match self.stage.get() {
            Lifecycle::Running if self.serving.is_draining() => reasons.push("draining"),
            Lifecycle::Running => {}
            Lifecycle::Draining => reasons.push("draining"),
            Lifecycle::Stopped => reasons.push("stopped"),
            _ => reasons.push("starting"),
        }
        if !self.components.ready() {
            reasons.push("component");
        }
        reasons
    }
}

impl Mesh {
    /// One layer for the axum routers and tonic servers of this process: health, deadlines, a limit of what runs at once,
    /// and errors as answers. See [`MeshServerLayer`].
    ///
    /// ```no_run
    /// # async fn example(mesh: tower_mesh::Mesh) -> Result<(), Box<dyn std::error::Error>> {
    /// use axum::{Router, routing::get};
    ///
    /// let app = Router::new()
    ///     .route("/", get(|| async { "hello" }))
    ///     .layer(mesh.server_layer());
    /// let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
    /// mesh.serve(listener, app).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn server_layer(&self) -> MeshServerLayer {
        let core = Arc::downgrade(&self.core);
        let server = ServerLayer::new()
            .clock(self.core.clock.clone())
            .rng(self.core.rng.clone())
            .recorder(&*self.core.recorder)
            .ready_unless(move || match core.upgrade() {
                Some(core) => core.unready(),
                None => vec!["stopped"],
            });
        let settings = &self.core.configured.server;
        let layer = MeshServerLayer {
            server,
            limit: limit(settings.max_in_flight.unwrap_or(MAX_IN_FLIGHT), &self.core),
            report: ReportLoadLayer::new()
                .clock(self.core.clock.clone())
                .silent(),
            authorize: match &self.core.callers {
                Some(callers) => AuthorizeLayer::new(callers.clone()),
                None => AuthorizeLayer::off(),
            },
            core: Arc::clone(&self.core),
        };
        layer.configured(settings)
    }

    /// Serves what comes to `listener` with `service`, an axum `Router` or any other tower service, over HTTP/1.1 and HTTP/2,
    /// until the process is told to end; then ends it without a failed call, and the mesh after it. See [`Serve`].
    ///
    /// The service is served as it is: put [`server_layer`](Self::server_layer) round it.
    pub fn serve<S>(&self, listener: TcpListener, service: S) -> Serve<S> {
        Serve::new(self.clone(), listener, service)
    }
}

fn limit(most: NonZeroUsize, core: &Core) -> AdaptiveLimitLayer<ClassifyErrors, CompleteOnBody> {
    let bulkhead = BulkheadLayer::new(most)
        .by_priority(most.get())
        .max_wait(CRITICAL_WAITS)
        .clock(core.clock.clone())
        .completion(CompleteOnBody::new())
        .adaptive(Adaptive::new());
    AdaptiveLimitLayer::over_bulkhead(bulkhead)
}

/// Makes an axum router or a tonic server one of the mesh; made by [`Mesh::server_layer`].
///
/// It is a [`ServerLayer`](crate::http::server::ServerLayer), which says what becomes of a request, over a limit of requests
/// that run at once: one too many is told so at once (503, `RESOURCE_EXHAUSTED`), and the handler does not see it. A request
/// counts to the end of its answer's body. Health checks pass above the limit.
///
/// Requests may say [how much they matter](crate::http::context::PRIORITY_HEADER). When there is more to do than may run, those
/// that are sheddable are refused first, with a quarter of the limit left, and those that are critical wait for a permit, up
/// to 100 ms, and go before all others. Nothing is set aside for them.
///
/// | setting, in `[server]` too | unless said | why |
/// |---|---|---|
/// | [`limit`](Self::limit), `max_in_flight` | 1,024 | Envoy's and gRPC's cap for a cluster. It goes down by itself while requests outlast `timeout`, and up again |
/// | `adaptive` | yes | it begins at the limit and goes down only when more requests outlast `timeout` than do not: a server that is idle, or has no `timeout`, refuses nobody for it |
/// | [`timeout`](Self::timeout) | none | the senders' deadlines hold anyway; an upload may take long. With one, shorter than senders wait, overload is noticed: set it |
/// | [`believe_priority`](Self::believe_priority) | up to `default` | anybody may say that a request matters less; to be believed in more takes a network of one's own |
/// | [`authorize`](Self::authorize), `token_env`, `token_file` | everybody may | who may do what, only its owner knows |
/// | [`report_load`](Self::report_load) | no | only clients that go by it have any use for it |
/// | [`grpc_services`](Self::grpc_services) | all names are known | |
///
/// Only the server's own `timeout` moves the limit: a sender that asks for too little time has itself to blame, and must not
/// shut others out.
///
/// # Clone
///
/// One layer value is one limit and one set of counts, however many services it makes; clones share them. A setter makes a
/// layer with new ones.
#[derive(Clone, Debug)]
pub struct MeshServerLayer {
    server: ServerLayer,
    limit: AdaptiveLimitLayer<ClassifyErrors, CompleteOnBody>,
    report: ReportLoadLayer,
    authorize: AuthorizeLayer,
    core: Arc<Core>,
}

impl MeshServerLayer {
    fn configured(mut self, settings: &ServerConfig) -> Self {
        if let Some(timeout) = settings.timeout {
            self = self.timeout(timeout);
        }
        if settings.adaptive == Some(false) {
            self.limit.limit().suspend();
        }
        if let Some(most) = settings.believe_priority {
            self = self.believe_priority(most);
        }
        if settings.report_load == Some(true) {
            self = self.report_load();
        }
        if let Some(names) = &settings.grpc_services {
            self = self.grpc_services(names.clone());
        }
        self
    }

    /// Lets so many requests run at once, at most.
    #[must_use]
    pub fn limit(mut self, most: NonZeroUsize) -> Self {
        self.limit = limit(most, &self.core);
        self
    }

    /// Lets no request take longer, until its answer begins.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.server = self.server.timeout(timeout);
        self
    }

    /// Believes a request that says how much it matters up to here; see
    /// [`ServerLayer`](crate::http::server::ServerLayer::believe_priority).
    #[must_use]
    pub fn believe_priority(mut self, most: Priority) -> Self {
        self.server = self.server.believe_priority(most);
        self
    }

    /// Lets only those in who may; see [`Authorize`]. Health checks pass above it. Instead of what the configuration says.
    ///
    /// ```no_run
    /// # fn example(mesh: tower_mesh::Mesh, token: &str) {
    /// use tower_mesh::http::server::BearerTokens;
    ///
    /// let callers = BearerTokens::new().allow("storefront", token, ["/orders/"]);
    /// let layer = mesh.server_layer().authorize(callers);
    /// # let _ = layer;
    /// # }
    /// ```
    #[must_use]
    pub fn authorize(mut self, authorize: impl Authorize) -> Self {
        self.authorize = AuthorizeLayer::new(authorize);
        self
    }

    /// Says in each answer how busy this process is, so that clients of the mesh that go by it (`balance = "reported"`) send
    /// their calls where they are answered soonest. Two allocations an answer.
    #[must_use]
    pub fn report_load(mut self) -> Self {
        self.report = ReportLoadLayer::new().clock(self.core.clock.clone());
        self
    }

    /// What it reports of its load, if it does.
    pub fn load(&self) -> &Meter {
        self.report.meter()
    }

    /// Names the services that gRPC's health knows; unless said, each name is that of the process.
    #[must_use]
    pub fn grpc_services<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.server = self.server.grpc_services(names);
        self
    }

    /// Leaves the health paths to the handler.
    #[must_use]
    pub fn without_health(mut self) -> Self {
        self.server = self.server.without_health();
        self
    }

    /// What was counted so far.
    pub fn counts(&self) -> ServerCounts {
        self.server.counts()
    }

    /// How many run, and how many may.
    pub fn limits(&self) -> AdaptiveSnapshot {
        self.limit.limit().snapshot()
    }
}

impl<S> Layer<S> for MeshServerLayer {
    type Service = Server<ReportLoad<Bulkhead<Sampled<PerCall<Authorized<S>>>, CompleteOnBody>>>;

    fn layer(&self, inner: S) -> Self::Service {
        // Directly above the handler, beneath the limit, because to find out who somebody is takes more than to turn him
        // away.
        let inner = self.authorize.layer(inner);
        // Above all that takes time, so that its permit stands for it.
        let inner = self.limit.layer(inner);
        // Above the limit because those who wait for a permit are part of how busy the process is.
        let inner = self.report.layer(inner);
        // Above all so that health is never refused and a refusal has an answer; the deadline covers a wait for a permit.
        self.server.over(inner)
    }
}
