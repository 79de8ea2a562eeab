//! A running mesh.

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tower_layer::Layer;
use tower_mesh_breaker::CircuitBreakerRegistry;
use tower_mesh_core::{
    BoxError, Clock, Endpoint, Instance, Instant, Kind, Layered, NewLayer, Recorder, Refusal,
    Register, RegisterError, Rng, ServiceName,
};
use tower_mesh_discovery::Discovery;
use tower_mesh_health::{Component, Components, Criticality, Report};
use tower_mesh_http::{
    Addressed, HttpClient, HttpEndpoints, credentials::CredentialsLayer, server::BearerTokens,
};

use crate::{
    announce::Announced,
    builder::MeshBuilder,
    config::{Config, Operation},
    error::{Error, StartError},
    explain::Explained,
    lifecycle::{self, Lifecycle, Stage},
    reload::Reloads,
    remember::Remember,
    secure::Secure,
    server::Serving,
    service::{MeshLayer, MeshService, Over, State},
    settings::{Coded, Settings},
    shutdown::ShutdownError,
    snapshot::Recall,
    started::Started,
    status::Status,
    tasks::Tasks,
};

/// The mesh as one process sees it: finds services, calls them, and is found by them.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tower_mesh::Mesh;
///
/// let mesh = Mesh::from_file("mesh.toml").start().await?;
/// let response = mesh.service("orders")?.get("/orders/42").await?;
/// println!("{}\n{}", response.status(), mesh.status());
/// mesh.shutdown(Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Clone
///
/// A clone is the same mesh. It runs until [`shutdown`](Self::shutdown), or until the last clone of it, every
/// [`MeshService`] made by it and every call in flight has been dropped.
#[derive(Clone)]
pub struct Mesh {
    pub(crate) core: Arc<Core>,
    pub(crate) services: Arc<Services>,
}

/// What every service of the mesh shares. Nothing in it knows the services, so nothing here goes in a circle.
pub(crate) struct Core {
    pub(crate) name: ServiceName,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) recorder: Arc<dyn Recorder>,
    pub(crate) stage: Stage,
    pub(crate) discovery: Discovery,
    pub(crate) registry: Arc<dyn Register>,
    pub(crate) breakers: CircuitBreakerRegistry,
    pub(crate) components: Components,
    pub(crate) discovery_health: OnceLock<Component>,
    pub(crate) connect: HttpEndpoints,
    pub(crate) secure: Secure,
    /// What it was started with; only its policies and operations may change.
    pub(crate) configured: Config,
    pub(crate) zone: Option<String>,
    pub(crate) coded: Coded,
    /// Who may call this process, if that is configured.
    pub(crate) callers: Option<BearerTokens>,
    /// What is shown to services, by their names.
    pub(crate) credentials: HashMap<ServiceName, CredentialsLayer>,
    pub(crate) settings: ArcSwap<Settings>,
    pub(crate) reloads: Mutex<Reloads>,
    /// What was learned before, of services that are not in use yet.
    pub(crate) recall: Mutex<HashMap<String, Recall>>,
    pub(crate) remember: Option<Arc<Remember>>,
    pub(crate) tasks: Tasks,
    pub(crate) serving: Arc<Serving>,
    pub(crate) started_at: Instant,
    /// Async, because stopping waits; taken by whoever shuts down.
    pub(crate) started: tokio::sync::Mutex<Started>,
}

/// The services that are in use. Never locked on the path of a call: a [`MeshService`] holds its own.
#[derive(Default)]
pub(crate) struct Services(Mutex<HashMap<ServiceName, Arc<State>>>);

/// More services than that at once is no use of a mesh, but somebody calling services by names out of requests.
const MOST_SERVICES: usize = 10_000;

impl Mesh {
    /// Begins a mesh for the process that is `service` to others.
    pub fn builder(service: &str) -> MeshBuilder {
        MeshBuilder::new(service)
    }

    /// Begins a mesh as a [configuration file](crate::Config) says; what is wrong with it is the error of
    /// [`start`](MeshBuilder::start).
    pub fn from_file(file: impl AsRef<Path>) -> MeshBuilder {
        MeshBuilder::from_file(file.as_ref())
    }

    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            services: Arc::default(),
        }
    }

    /// The name of this process in the mesh.
    pub fn name(&self) -> &ServiceName {
        &self.core.name
    }

    /// A client of a service: a tower service for `http::Request<Body>`, cheap to clone and to keep.
    ///
    /// The service is looked up in the background from now on; it need not exist yet.
    ///
    /// # Errors
    ///
    /// If the name is invalid, the mesh is shutting down, or 10,000 services are in use.
    pub fn service(&self, service: &str) -> Result<MeshService, Error> {
        let state = self.state(service)?;
        Ok(state.client().clone())
    }

    /// The same, with a layer of your own over each endpoint: a [`ClassifyLayer`](crate::http::ClassifyLayer), so that what
    /// you take for a failure is one to breakers, load and retries.
    ///
    /// Each client made so has connections of its own, so keep one and clone it.
    ///
    /// ```no_run
    /// # fn example(mesh: tower_mesh::Mesh) -> Result<(), tower_mesh::Error> {
    /// use tower_mesh::{core::Outcome, http::{ClassifyLayer, Seen}};
    ///
    /// let orders = mesh.service_with(
    ///     "orders",
    ///     ClassifyLayer::new(|call: &Seen<'_>| {
    ///         let lost = call.request.method == "GET" && call.response?.status == 404;
    ///         lost.then_some(Outcome::failure())
    ///     }),
    /// )?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`service`](Self::service).
    pub fn service_with<L>(&self, service: &str, layer: L) -> Result<MeshService<Over<L>>, Error>
    where
        L: NewLayer<Endpoint> + Send + Sync + 'static,
        L::Layer: Layer<Addressed<HttpClient>, Service: Clone + Send + Sync + 'static>,
    {
        let state = self.state(service)?;
        let endpoints = Layered::new(state.connect().clone(), layer);
        Ok(MeshLayer::new(state).over(endpoints))
    }

    /// A layer that turns any HTTP client into a client of a service: each endpoint is called by a clone of the client,
    /// with the endpoint's address in the request's URI.
    ///
    /// ```no_run
    /// # fn example(mesh: tower_mesh::Mesh) -> Result<(), tower_mesh::Error> {
    /// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    /// use tower::ServiceBuilder;
    ///
    /// let client = Client::builder(TokioExecutor::new()).build_http::<tower_mesh::Body>();
    /// let orders = ServiceBuilder::new()
    ///     .layer(mesh.layer("orders")?)
    ///     .service(client);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`service`](Self::service), and if the service is called over TLS: what a client of your own connects to is an
    /// address, which nobody can prove.
    pub fn layer(&self, service: &str) -> Result<MeshLayer, Error> {
        let state = self.state(service)?;
        if self.core.secure.is_secure(state.name()) {
            let what = "it is called over TLS, for which the mesh has to connect: use `Mesh::service`, or \
                        `tls.enabled = false` for this service";
            return Err(Error::new(state.name(), what.into()));
        }
        Ok(MeshLayer::new(state))
    }

    pub(crate) fn state(&self, service: &str) -> Result<Arc<State>, Error> {
        let name = match ServiceName::new(service) {
            Ok(name) => name,
            // The error has to name a service, and this text cannot.
            Err(invalid) => return Err(Error::new(&self.core.name, invalid.into())),
        };
        if !self.core.stage.is_open() {
            return Err(Error::refused(&name, Refusal::local(Kind::ShuttingDown)));
        }
        self.services.get_or_make(&name, &self.core)
    }

    /// How a call of an operation is made.
    pub(crate) fn operation(&self, service: &ServiceName, operation: &str) -> Option<Operation> {
        let settings = self.core.settings.load();
        settings.operation(service, operation).cloned()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.core.clock
    }

    /// Announces an instance of a service, and keeps it announced until [`shutdown`](Self::shutdown): heartbeats are
    /// sent three times in each TTL, or each 30 s without one, so that a registry which has lost its state has it again.
    /// One that does not answer is tried again after 5 s.
    ///
    /// # Errors
    ///
    /// If the registry refuses or cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, the instance may stay registered until its TTL has passed.
    pub async fn register(&self, instance: Instance) -> Result<(), RegisterError> {
        let core = &self.core;
        let registration = core.registry.register(instance).await?;
        let announced = Announced::new(registration, &core.clock, &core.tasks);
        let instance = announced.instance();
        let id = instance.endpoint().id();
        tracing::info!(service = %instance.service(), id, "registered");
        let mut started = core.started.lock().await;
        let registrations = &mut started.registrations;
        // What it replaces is over, and would be told so at each heartbeat.
        registrations.retain(|old| !old.is_replaced_by(&announced));
        registrations.push(announced);
        Ok(())
    }

    /// Breakers by a key of your own, such as a tenant or a route: each is a layer for any service.
    ///
    /// The breakers of endpoints and services are not among them; they come and go with those.
    pub fn breakers(&self) -> &CircuitBreakerRegistry {
        &self.core.breakers
    }

    /// Stops the [part](MeshBuilder::component) that has the name of `component`, and starts `component` in its place. Each
    /// has `limit` for it. If the new one does not start, the old one is started again.
    ///
    /// # Errors
    ///
    /// [`StartError`] if no part has this name, the new one did not start, or the mesh has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, it goes on.
    pub async fn replace(
        &self,
        component: impl lifecycle::Component,
        limit: Duration,
    ) -> Result<(), StartError> {
        let (core, component) = (Arc::clone(&self.core), Arc::new(component));
        let (done, result) = tokio::sync::oneshot::channel();
        self.core.tasks.finish(async move {
            let mut started = core.started.lock().await;
            let replaced = if core.stage.is_open() {
                started.replace(component, &core.clock, limit).await
            } else {
                Err(StartError::new("the mesh has ended"))
            };
            // Nobody may wait for it any more.
            let _ = done.send(replaced);
        });
        result
            .await
            .unwrap_or_else(|_| Err(StartError::new("the part panicked")))
    }

    /// How the parts of this process are: add your own, by what they say or what they answer when asked.
    pub fn components(&self) -> &Components {
        &self.core.components
    }

    /// Whether this process can do its work: the mesh runs, and no critical [component](Self::components) is unhealthy.
    pub fn ready(&self) -> bool {
        self.core.is_ready()
    }

    /// Why each endpoint of a service is or is not picked now, and what its last callers were refused for.
    ///
    /// # Errors
    ///
    /// As [`service`](Self::service).
    pub fn explain(&self, service: &str) -> Result<Explained, Error> {
        Ok(Explained::of(&self.core, &*self.state(service)?))
    }

    /// The state of the mesh as it is now.
    pub fn status(&self) -> Status {
        Status::of(&self.core, self.services.all())
    }

    /// Ends the mesh: refuses new calls, takes this process out of the registry, waits until the calls in flight have
    /// ended, and stops everything that it runs.
    ///
    /// # Errors
    ///
    /// [`ShutdownError`] if calls had to be cut off after `limit`, or the registry did not let this process go. The mesh
    /// has ended all the same, within `limit` and one second.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, the mesh refuses new calls and goes on as far as it has come; called again, it ends it.
    pub async fn shutdown(&self, limit: Duration) -> Result<(), ShutdownError> {
        crate::shutdown::shutdown(&self.core, &self.services, limit).await
    }
}

impl Services {
    fn get_or_make(&self, name: &ServiceName, core: &Arc<Core>) -> Result<Arc<State>, Error> {
        let mut services = self.lock();
        if let Some(state) = services.get(name) {
            return Ok(Arc::clone(state));
        }
        if services.len() >= MOST_SERVICES {
            services.retain(|_, state| Arc::strong_count(state) > 1);
        }
        if services.len() >= MOST_SERVICES {
            let full = Refusal::local(Kind::Overloaded)
                .with_context(format!("{MOST_SERVICES} services are in use at once"));
            return Err(Error::refused(name, full));
        }
        let state = State::new(name, core).map_err(|error| Error::new(name, error))?;
        let state = Arc::new(state);
        services.insert(name.clone(), Arc::clone(&state));
        Ok(state)
    }

    /// Lets go of a service that nobody holds and nobody calls.
    pub(crate) fn let_go(&self, name: &ServiceName) {
        let gone = {
            let mut services = self.lock();
            let idle = services
                .get(name)
                .is_some_and(|state| Arc::strong_count(state) == 1 && state.in_flight() == 0);
            idle.then(|| services.remove(name))
        };
        drop(gone); // Outside the lock.
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Vec<Arc<State>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// Calls that have begun and not ended, to the end of their bodies.
    pub(crate) fn in_flight(&self) -> u64 {
        self.lock().values().map(|state| state.in_flight()).sum()
    }

    /// Lets go of all services: their connections end with the last client that a user holds.
    pub(crate) fn clear(&self) {
        let services = std::mem::take(&mut *self.lock());
        drop(services); // Outside the lock: a service's drop is user code.
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ServiceName, Arc<State>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    pub(crate) fn is_ready(&self) -> bool {
        self.stage.get() == Lifecycle::Running
            && !self.serving.is_draining()
            && self.components.ready()
    }

    /// Has discovery among the components: degraded while it answers from what it knew before.
    pub(crate) fn report_discovery(self: &Arc<Self>) {
        let core = Arc::downgrade(self);
        let ask = move || {
            let core = core.upgrade();
            async move { Ok::<_, BoxError>(core.map_or_else(Report::healthy, |core| core.discovered())) }
        };
        let name = "discovery";
        if let Ok(component) = self.components.check(name, Criticality::Optional, ask) {
            let _ = self.discovery_health.set(component);
        }
    }

    fn discovered(&self) -> Report {
        let services = self.discovery.status();
        let stale = services.iter().find_map(|service| {
            let why = match (&service.last_error, service.suspect) {
                (Some(error), _) => error.to_string(),
                (None, true) => "the last answer had too few endpoints".to_owned(),
                (None, false) => return None,
            };
            Some(format!("{}: {why}", service.service))
        });
        stale.map_or_else(Report::healthy, |why| Report::degraded(&why))
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh")
            .field("name", &self.core.name)
            .field("lifecycle", &self.lifecycle())
            .finish_non_exhaustive()
    }
}

impl Mesh {
    /// Where it stands.
    pub fn lifecycle(&self) -> Lifecycle {
        self.core.stage.get()
    }

    /// How many background tasks it runs: discovery, heartbeats, connections. Zero after a shutdown.
    pub fn tasks(&self) -> usize {
        self.core.tasks.running()
    }
}
