//! Building and starting a mesh.

mod plan;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tower_mesh_core::{Clock, Recorder, Register, Resolve, Rng, metrics::NoRecorder};
use tower_mesh_http::{HttpEndpoints, credentials::TokenProvider};

use self::plan::Plan;
use crate::{
    config::{Config, ConfigError},
    error::StartError,
    lifecycle::{Component, Start},
    mesh::Mesh,
    policy::Policy,
    remember::Remember,
    secure::Secure,
    snapshot::Snapshot,
    started::Started,
    tasks::Tasks,
};

/// Builds a [`Mesh`]: every part has a default and can be replaced.
///
/// Nothing runs and nothing is checked before [`start`](Self::start), so parts can be given in any order.
#[must_use = "a mesh does nothing until it is started"]
pub struct MeshBuilder {
    name: String,
    config: Result<Config, ConfigError>,
    /// Where the configuration was read, and its text.
    file: Option<(PathBuf, Option<String>)>,
    watch: Option<Duration>,
    clock: Option<Clock>,
    rng: Rng,
    recorder: Arc<dyn Recorder>,
    discovery: Option<Arc<dyn Resolve>>,
    registry: Option<Arc<dyn Register>>,
    defaults: Option<Policy>,
    policies: BTreeMap<String, Policy>,
    connect_timeout: Option<Duration>,
    connections: Option<SetConnections>,
    secure: Secure,
    #[cfg(feature = "tls")]
    secured: Vec<(String, tower_mesh_http::Tls, String)>,
    components: Vec<(Start, Arc<dyn Component>)>,
    snapshot: Option<Snapshot>,
    zone: Option<String>,
    credentials: BTreeMap<String, Box<dyn TokenProvider>>,
}

type SetConnections = Box<dyn FnOnce(HttpEndpoints) -> HttpEndpoints + Send + Sync>;

impl MeshBuilder {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            config: Ok(Config::default()),
            file: None,
            watch: None,
            clock: None,
            rng: Rng::default(),
            recorder: Arc::new(NoRecorder::default()),
            discovery: None,
            registry: None,
            defaults: None,
            policies: BTreeMap::new(),
            connect_timeout: None,
            connections: None,
            secure: Secure::default(),
            #[cfg(feature = "tls")]
            secured: Vec::new(),
            components: Vec::new(),
            snapshot: None,
            zone: None,
            credentials: BTreeMap::new(),
        }
    }

    pub(crate) fn from_file(file: &Path) -> Self {
        let (config, text) = Config::read(file);
        let mut this = Self::new("").with_config(config);
        this.file = Some((file.to_owned(), text));
        this
    }

    fn with_config(mut self, config: Result<Config, ConfigError>) -> Self {
        self.config = config;
        self
    }

    /// Takes what a configuration says; what is said on the builder goes before it.
    pub fn config(self, config: Config) -> Self {
        self.with_config(Ok(config))
    }

    /// Looks at the configuration file so often, and [reloads](Mesh::reload) it when it says something else; unless said it
    /// is read once. What cannot be put in force is logged and stands in the [status](Mesh::status).
    ///
    /// # Errors
    ///
    /// [`start`](Self::start) refuses it without a file, and an interval of zero.
    pub fn watch(mut self, every: Duration) -> Self {
        self.watch = Some(every);
        self
    }

    /// Finds services here; the default is what `[discovery]` says, or the embedded registry.
    pub fn discovery(mut self, source: impl Resolve) -> Self {
        self.discovery = Some(Arc::new(source));
        self
    }

    /// Announces instances here; the default is Consul if `[discovery]` names it, or the embedded registry.
    pub fn registry(mut self, registry: impl Register) -> Self {
        self.registry = Some(Arc::new(registry));
        self
    }

    /// Sets the policy of every service that has none of its own.
    pub fn defaults(mut self, policy: Policy) -> Self {
        self.defaults = Some(policy);
        self
    }

    /// Sets the policy of one service.
    pub fn policy(mut self, service: &str, policy: Policy) -> Self {
        self.policies.insert(service.to_owned(), policy);
        self
    }

    /// Shows a token of `provider` in each request to `service`, and to no other; see
    /// [`credentials`](crate::http::credentials).
    ///
    /// Over TLS, or within a network where nobody listens: a bearer token is whoever's it is.
    pub fn credentials(mut self, service: &str, provider: impl TokenProvider) -> Self {
        let provider = Box::new(provider);
        self.credentials.insert(service.to_owned(), provider);
        self
    }

    /// Says where this process runs, so that calls stay [near](crate::balance#priorities-and-zones): a path from the largest
    /// part to the smallest, as the endpoints' zones are, such as `eu-west/1a`. Unless said, zones do not matter.
    pub fn zone(mut self, path: &str) -> Self {
        self.zone = Some(path.to_owned());
        self
    }

    /// How long a connection may take to be made; the default is 1 s, as linkerd's.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Sets what connections there are to each endpoint: how many, for how long, whether they are made ahead. What is not
    /// set stays as [`HttpEndpoints`] has it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_mesh::Mesh;
    /// let mesh = Mesh::builder("storefront")
    ///     .connections(|clients| clients.warm_up().idle_timeout(Duration::from_secs(30)));
    /// # let _ = mesh;
    /// ```
    pub fn connections(
        mut self,
        set: impl FnOnce(HttpEndpoints) -> HttpEndpoints + Send + Sync + 'static,
    ) -> Self {
        self.connections = Some(Box::new(set));
        self
    }

    /// Calls every service over TLS that has nothing else said of it. Its endpoints have to prove the service's name.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: tower_mesh_http::Tls) -> Self {
        self.secure.set_all(tls);
        self
    }

    /// Calls a service over TLS. Its endpoints have to prove that they are `name`.
    #[cfg(feature = "tls")]
    pub fn service_tls(mut self, service: &str, tls: tower_mesh_http::Tls, name: &str) -> Self {
        self.secured
            .push((service.to_owned(), tls, name.to_owned()));
        self
    }

    /// Records metrics here; the default records nothing, and costs nothing.
    pub fn recorder(mut self, recorder: impl Recorder) -> Self {
        self.recorder = Arc::new(recorder);
        self
    }

    /// Takes time from here: for tests and simulation. The default is [`Clock::for_runtime`].
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Takes chance from here: for tests and simulation.
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// Begins with what a mesh before this one has [learned](Mesh::snapshot), as far as that is not too old.
    ///
    /// [`start`](Self::start) refuses a snapshot of another version; leave it away then.
    pub fn restore(mut self, snapshot: Snapshot) -> Self {
        self.snapshot = Some(snapshot);
        self
    }

    /// Starts a part of your own with the mesh, after the mesh's own part of that stage.
    pub fn component(mut self, start: Start, component: impl Component) -> Self {
        self.components.push((start, Arc::new(component)));
        self
    }

    /// Checks everything, then starts discovery, breakers, health and monitoring, in that order.
    ///
    /// # Errors
    ///
    /// [`StartError`] says what is wrong, or which part did not start; what had been started has then been stopped
    /// again.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, what it has started is stopped.
    pub async fn start(self) -> Result<Mesh, StartError> {
        let tasks = Tasks::new()
            .ok_or_else(|| StartError::new("a mesh has to be started on a tokio runtime"))?;
        let (clock, timers) = match self.clock.clone() {
            Some(clock) => (clock, None),
            None => Clock::for_runtime(),
        };
        let remember = self.remembered().await;
        let started = Started::new(tasks.clone(), clock.clone());
        let plan = Plan::of(self, clock, remember)?;
        if let Some(timers) = timers {
            tasks.spawn(timers);
        }
        plan.run(tasks, started).await
    }

    /// Read where blocking is allowed, and before all else: it tells of services that are looked up first.
    async fn remembered(&self) -> Option<Arc<Remember>> {
        let path = self.config.as_ref().ok()?.discovery.remember.clone()?;
        let read = tokio::task::spawn_blocking(|| Remember::open(path));
        read.await.ok()
    }
}

impl fmt::Debug for MeshBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshBuilder")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
