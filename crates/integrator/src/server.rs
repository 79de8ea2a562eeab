//! This process as a server of the mesh.

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
    CompleteOnBody,
    server::{Server, ServerCounts, ServerLayer},
};
use tower_mesh_limit::{
    Adaptive, AdaptiveLimitLayer, AdaptiveSnapshot, Bulkhead, BulkheadLayer, adaptive::Sampled,
};

pub use self::serve::{Serve, ServeError};
use crate::{
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
        MeshServerLayer {
            server,
            limit: limit(MAX_IN_FLIGHT, &self.core),
            core: Arc::clone(&self.core),
        }
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
/// | setting | unless said | why |
/// |---|---|---|
/// | [`limit`](Self::limit) | 1,024 | Envoy's and gRPC's cap for a cluster. It goes down by itself while requests outlast `timeout`, and up again |
/// | [`timeout`](Self::timeout) | none | the senders' deadlines hold anyway; an upload may take long |
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
    core: Arc<Core>,
}

impl MeshServerLayer {
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
    type Service = Server<Bulkhead<Sampled<PerCall<S>>, CompleteOnBody>>;

    fn layer(&self, inner: S) -> Self::Service {
        // Above the limit so that health is never refused and a refusal has an answer; the deadline covers a wait for a
        // permit. The limit stands directly above the handler so that its permit is about nothing else.
        self.server.over(self.limit.layer(inner))
    }
}
