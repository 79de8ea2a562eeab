//! The client of one service.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, Weak},
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{Method, Request, Uri, uri::PathAndQuery};
use tower_layer::Layer;
use tower_mesh_core::{BoxError, Endpoint, Endpoints, NewLayer, NewService, ServiceName};
use tower_mesh_health::ServiceHealth;
use tower_mesh_http::{Addressed, AddressedShared, Body, HttpClient, HttpEndpoints};
use tower_mesh_limit::BulkheadHandle;
use tower_service::Service;

use crate::{
    checks::Checks,
    error::Error,
    errors::Errors,
    mesh::Core,
    metrics::Metrics,
    observe::Scope,
    settings::Settings,
    stack::{Layers, ResponseBody, ResponseFuture, Stack, pool_of},
    stacks::{Renew, Stacks, lock},
};

/// One service of the mesh: its state, shared by all its clients.
pub(crate) struct State {
    scope: Arc<Scope>,
    endpoints: Endpoints,
    connect: HttpEndpoints,
    /// As the settings in force say.
    layers: ArcSwap<Layers>,
    /// Of its endpoints, if the settings in force say so.
    checks: Mutex<Option<Checks>>,
    /// Permits of layers that are no more in force, while calls hold some.
    retired: Mutex<Vec<BulkheadHandle>>,
    /// To be told of other layers.
    stacks: Mutex<Vec<Weak<dyn Renew>>>,
    /// The client over hyper; made when it is first asked for, since a user's own client may be all there is.
    client: OnceLock<Arc<Stacks<Addressed<HttpClient>>>>,
    #[cfg(feature = "grpc")]
    grpc: OnceLock<Arc<Stacks<Addressed<HttpClient>>>>,
}

impl State {
    pub(crate) fn new(name: &ServiceName, core: &Arc<Core>) -> Result<Self, BoxError> {
        let connect = core.secure.connect(&core.connect, name)?;
        let endpoints = core.discovery.endpoints(name);
        let scope = Arc::new(Scope {
            service: name.clone(),
            metrics: Metrics::new(name, &*core.recorder),
            errors: Errors::default(),
            core: Arc::clone(core),
        });
        let layers = Layers::new(
            Arc::clone(&scope),
            &endpoints,
            core.settings.load().policy(name),
            lock(&core.recall).remove(name.as_str()).unwrap_or_default(),
        );
        Ok(Self {
            checks: Mutex::new(Checks::start(
                &layers.policy.health,
                &endpoints,
                &connect,
                core,
            )),
            connect,
            scope,
            endpoints,
            layers: ArcSwap::from_pointee(layers),
            retired: Mutex::default(),
            stacks: Mutex::default(),
            client: OnceLock::new(),
            #[cfg(feature = "grpc")]
            grpc: OnceLock::new(),
        })
    }

    pub(crate) fn name(&self) -> &ServiceName {
        &self.scope.service
    }

    /// How old its endpoints are, if they are remembered ones.
    pub(crate) fn recalled(&self) -> Option<Duration> {
        let remember = self.scope.core.remember.as_ref()?;
        remember.recalled(self.name())
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    pub(crate) fn layers(&self) -> Arc<Layers> {
        self.layers.load_full()
    }

    /// What checks have found of its endpoints, if they are checked.
    pub(crate) fn health(&self) -> Option<ServiceHealth> {
        lock(&self.checks).as_ref()?.found()
    }

    /// Calls that have begun and not ended, to the end of their bodies.
    pub(crate) fn in_flight(&self) -> u64 {
        // A call that waits for discovery has no permit yet, and a body that is still read is no call any more.
        let calls = self.scope.metrics.counts().in_flight;
        let retired: usize = lock(&self.retired).iter().map(in_use).sum();
        calls.max((in_use(&self.layers.load().permits) + retired) as u64)
    }

    /// Puts other settings in force, for the clients that there are and those to come.
    ///
    /// One after the other: whoever calls it holds the lock of reloads.
    pub(crate) fn follow(&self, settings: &Settings) {
        let old = self.layers();
        let policy = settings.policy(self.name());
        if *policy == old.policy {
            return;
        }
        if pool_of(policy) != pool_of(&old.policy) {
            let mut retired = lock(&self.retired);
            retired.retain(|permits| in_use(permits) > 0);
            retired.push(old.permits.clone());
        }
        if policy.health != old.policy.health {
            let mut checks = lock(&self.checks);
            // First: two do not check the same endpoints.
            drop(checks.take());
            *checks = Checks::start(
                &policy.health,
                &self.endpoints,
                &self.connect,
                &self.scope.core,
            );
        }
        self.layers.store(Arc::new(old.under(policy)));
        let stacks: Vec<_> = lock(&self.stacks)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for stack in stacks {
            stack.renew(&self.layers);
        }
    }

    pub(crate) fn client(self: &Arc<Self>) -> MeshService {
        let stacks = self
            .client
            .get_or_init(|| self.stacks(self.connect.clone()));
        MeshService::new(self, Arc::clone(stacks))
    }

    /// The same over HTTP/2.
    #[cfg(feature = "grpc")]
    pub(crate) fn grpc(self: &Arc<Self>) -> MeshService {
        let stacks = self.grpc.get_or_init(|| self.stacks(self.http2()));
        MeshService::new(self, Arc::clone(stacks))
    }

    /// What calls its endpoints.
    pub(crate) fn connect(&self) -> &HttpEndpoints {
        &self.connect
    }

    /// The same over HTTP/2.
    #[cfg(feature = "grpc")]
    pub(crate) fn http2(&self) -> HttpEndpoints {
        let connect = self.connect.clone();
        connect.protocol(tower_mesh_http::Protocol::Http2)
    }

    fn stacks<N>(&self, connect: N) -> Arc<Stacks<N::Service>>
    where
        N: NewService<Endpoint> + Send + Sync + 'static,
        N::Service: Clone + Send + Sync + 'static,
    {
        let layers = self.layers();
        let stacks = Arc::new(Stacks::new(&layers, connect));
        let listed: Arc<dyn Renew> = stacks.clone();
        {
            let mut all = lock(&self.stacks);
            all.retain(|stacks| stacks.strong_count() > 0);
            all.push(Arc::downgrade(&listed));
        }
        // The settings may have changed before it was listed.
        if !Arc::ptr_eq(&layers, &self.layers.load()) {
            stacks.renew(&self.layers);
        }
        stacks
    }
}

/// The service of an endpoint beneath a layer of the user's.
pub(crate) type Over<L> =
    <<L as NewLayer<Endpoint>>::Layer as Layer<Addressed<HttpClient>>>::Service;

fn in_use(permits: &BulkheadHandle) -> usize {
    permits.snapshot().in_use
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("name", self.name())
            .finish_non_exhaustive()
    }
}

/// A client of one service of the mesh.
///
/// It is a tower service for `http::Request<Body>`: the path of the request's URI says what is asked for, the mesh
/// chooses the endpoint and sets scheme and authority. Found by [`Mesh::service`](crate::Mesh::service) over hyper, or
/// made by [`MeshLayer`] over a client of your own.
///
/// What happens to a call, outermost first: it is counted and traced; it gets its deadline; it waits for the first
/// answer of the registry; it takes a permit; it is tried, and tried again elsewhere if it may be; each attempt picks
/// the best of three endpoints whose breakers let it through.
///
/// # Clone
///
/// A clone shares everything: endpoints, breakers, budget, limit. Cloning is a few reference counts.
///
/// # Errors
///
/// Always [`Error`]; a response of any status is no error.
///
/// # Cancel safety
///
/// Dropping a call's future ends the call: its permit, its place in a queue and a probe are given back, and it says
/// nothing against the endpoint.
pub struct MeshService<S = Addressed<HttpClient>> {
    stack: Stack<S>,
    /// Which of `stacks` it is.
    generation: u64,
    timeout: Duration,
    /// Set by its user, whatever the policy says.
    own_timeout: Option<Duration>,
    stacks: Arc<Stacks<S>>,
    state: Arc<State>,
}

impl<S> MeshService<S> {
    /// The service that it calls.
    pub fn name(&self) -> &ServiceName {
        self.state.name()
    }

    /// How long a call may take, until its response begins.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The endpoints of the service as they are now.
    pub fn endpoints(&self) -> &Endpoints {
        &self.state.endpoints
    }
}

impl<S> MeshService<S> {
    /// Whether there are settings that it does not follow yet.
    pub(crate) fn is_outdated(&self) -> bool {
        self.generation != self.stacks.generation()
    }
}

impl<S: Clone> MeshService<S> {
    fn new(state: &Arc<State>, stacks: Arc<Stacks<S>>) -> Self {
        let (generation, layers, stack) = stacks.latest();
        Self {
            stack,
            generation,
            timeout: layers.policy.timeout,
            own_timeout: None,
            stacks,
            state: Arc::clone(state),
        }
    }

    /// The same client, whose calls take no longer than `timeout`, whatever the settings say.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let mut this = self.clone();
        this.own_timeout = Some(timeout);
        this.renew();
        this
    }

    /// Takes the stack of the settings in force.
    #[cold]
    fn renew(&mut self) {
        let (generation, layers, stack) = self.stacks.latest();
        self.generation = generation;
        self.timeout = self.own_timeout.unwrap_or(layers.policy.timeout);
        self.stack = match self.own_timeout {
            Some(timeout) => layers.with_timeout(&stack, timeout),
            None => stack,
        };
    }
}

impl<S, B> MeshService<S>
where
    S: Service<Request<Body>, Response = http::Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    /// Asks for `path`, which starts with a slash and may hold a query.
    ///
    /// # Errors
    ///
    /// [`Error`], also if `path` is none.
    pub async fn get(&self, path: &str) -> Result<http::Response<ResponseBody<B>>, Error> {
        let path: PathAndQuery = path
            .parse()
            .map_err(|error: http::uri::InvalidUri| Error::new(self.name(), error.into()))?;
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = Uri::from(path);
        self.send(request).await
    }

    /// Sends `request`.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<http::Response<ResponseBody<B>>, Error> {
        let mut this = self.clone();
        std::future::poll_fn(|cx| this.poll_ready(cx)).await?;
        this.call(request).await
    }
}

impl<S, B> Service<Request<Body>> for MeshService<S>
where
    S: Service<Request<Body>, Response = http::Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<ResponseBody<B>>;
    type Error = Error;
    type Future = ResponseFuture<S>;

    /// Ready at once, unless the mesh is shutting down.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.is_outdated() {
            self.renew();
        }
        self.stack.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.stack.call(request)
    }
}

impl<S: Clone> Clone for MeshService<S> {
    fn clone(&self) -> Self {
        Self {
            stack: self.stack.clone(),
            generation: self.generation,
            timeout: self.timeout,
            own_timeout: self.own_timeout,
            stacks: Arc::clone(&self.stacks),
            state: Arc::clone(&self.state),
        }
    }
}

impl<S> fmt::Debug for MeshService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshService")
            .field("name", self.name())
            .finish_non_exhaustive()
    }
}

/// Turns a client into a client of one service of the mesh; made by [`Mesh::layer`](crate::Mesh::layer).
///
/// # Clone
///
/// All clients made by it and its clones share one state.
#[derive(Clone, Debug)]
pub struct MeshLayer {
    state: Arc<State>,
}

impl MeshLayer {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// Calls each endpoint by the service that `endpoints` makes for it, with the request's URI left as it is: for a
    /// connection or a client of its own for each endpoint.
    pub fn over<N>(&self, endpoints: N) -> MeshService<N::Service>
    where
        N: NewService<Endpoint> + Send + Sync + 'static,
        N::Service: Clone + Send + Sync + 'static,
    {
        MeshService::new(&self.state, self.state.stacks(endpoints))
    }
}

impl<S> Layer<S> for MeshLayer
where
    S: Clone + Send + Sync + 'static,
{
    type Service = MeshService<Addressed<S>>;

    fn layer(&self, client: S) -> Self::Service {
        self.over(AddressedShared::new(client))
    }
}
