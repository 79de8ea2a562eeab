//! Building and starting a mesh.

use std::{
    collections::BTreeMap,
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, OnceLock},
    task::Poll,
    time::Duration,
};

use arc_swap::ArcSwap;
use tower_mesh_breaker::CircuitBreakerRegistry;
use tower_mesh_core::{
    BoxError, Clock, MemoryRegistry, Recorder, Register, Resolve, Rng, ServiceName,
    metrics::NoRecorder,
};
use tower_mesh_discovery::Discovery;
use tower_mesh_health::Components;
use tower_mesh_http::{
    HttpEndpoints,
    credentials::{CredentialsLayer, TokenProvider},
    server::BearerTokens,
};

use crate::{
    announce::Announced,
    config::Config,
    error::StartError,
    lifecycle::{Component, Lifecycle, Stage, Start},
    mesh::{Core, Mesh},
    policy::Policy,
    reload::Watched,
    remember::Remember,
    secure::Secure,
    settings::{Coded, Settings},
    snapshot::Snapshot,
    sources::Sources,
    stack::breaker_policy,
    tasks::Tasks,
};

/// Builds a [`Mesh`]: every part has a default and can be replaced.
///
/// Nothing runs and nothing is checked before [`start`](Self::start), so parts can be given in any order.
#[must_use = "a mesh does nothing until it is started"]
pub struct MeshBuilder {
    name: String,
    config: Result<Config, crate::ConfigError>,
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

    fn with_config(mut self, config: Result<Config, crate::ConfigError>) -> Self {
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
        let plan = self.validate(clock, remember)?;
        if let Some(timers) = timers {
            tasks.spawn(timers);
        }
        let started = Started::new(tasks.clone());
        plan.run(tasks, started).await
    }

    /// Read where blocking is allowed, and before all else: it tells of services that are looked up first.
    async fn remembered(&self) -> Option<Arc<Remember>> {
        let path = self.config.as_ref().ok()?.discovery.remember.clone()?;
        let read = tokio::task::spawn_blocking(|| Remember::open(path));
        read.await.ok()
    }

    fn validate(self, clock: Clock, remember: Option<Arc<Remember>>) -> Result<Plan, StartError> {
        let config = self
            .config
            .map_err(|error| StartError::new("the configuration is invalid").caused_by(error))?;
        let name = match (self.name.as_str(), &config.service) {
            ("", Some(name)) => name.clone(),
            ("", None) => return Err(StartError::new("the mesh has no name: set `service`")),
            (name, _) => checked(name)?,
        };
        // What can be found out only now: what stands in other files, and beside what was said in code.
        let located = |error: crate::ConfigError| {
            StartError::new("the configuration is invalid").caused_by(match &self.file {
                Some((file, Some(text))) => error.locate(text).in_file(file),
                _ => error,
            })
        };
        let embedded = MemoryRegistry::with_clock(clock.clone());
        let (source, registry) = match (self.discovery, self.registry) {
            (Some(source), Some(registry)) => (source, registry),
            (source, registry) => {
                let configured = Sources::new(&config.discovery, &embedded, &clock, &self.rng)
                    .map_err(located)?;
                (
                    source.unwrap_or(configured.source),
                    registry.unwrap_or(configured.registry),
                )
            }
        };
        let coded = Coded {
            defaults: self.defaults.unwrap_or_default(),
            policies: (self.policies.into_iter())
                .map(|(name, policy)| Ok((checked(&name)?, policy)))
                .collect::<Result<_, StartError>>()?,
        };
        let settings = coded
            .with(&config, 1)
            .map_err(|error| StartError::new("a policy is invalid").caused_by(error))?;
        #[allow(unused_mut)] // By TLS.
        let mut secure = self.secure;
        #[cfg(feature = "tls")]
        for (service, tls, name) in self.secured {
            secure.set(checked(&service)?, tls, name);
        }
        let secure = secure.over(&config).and_then(|secure| {
            secure.check(&settings)?;
            Ok(secure)
        });
        let secure = secure.map_err(located)?;
        let watched = match (self.watch, self.file) {
            (None, _) => None,
            (Some(Duration::ZERO), _) => return Err(StartError::new("watch must be above zero")),
            (Some(_), None) => return Err(StartError::new("there is no file to watch")),
            (Some(every), Some((file, text))) => Some(Watched { file, every, text }),
        };
        if self
            .connect_timeout
            .is_some_and(|timeout| timeout.is_zero())
        {
            return Err(StartError::new("connect_timeout must be above zero"));
        }
        let callers = config
            .server
            .callers()
            .map_err(|error| StartError::new("the configuration is invalid").caused_by(error))?;
        let credentials = (self.credentials.into_iter())
            .map(|(name, provider)| Ok((checked(&name)?, provider)))
            .collect::<Result<_, StartError>>()?;
        let zone = self.zone.or_else(|| config.zone.clone());
        let source = match &remember {
            Some(remember) => Arc::new(remember.over(source, &clock)),
            None => source,
        };
        let learned = || remember.as_ref()?.learned();
        let snapshot = self.snapshot.or_else(learned).unwrap_or_default();
        snapshot
            .check()
            .map_err(|error| StartError::new("nothing can be restored").caused_by(error))?;
        Ok(Plan {
            name,
            clock,
            rng: self.rng,
            recorder: self.recorder,
            source,
            registry,
            watched,
            coded,
            settings,
            config,
            secure,
            connect_timeout: self.connect_timeout,
            connections: self.connections,
            components: self.components,
            snapshot,
            remember,
            zone,
            callers,
            credentials,
        })
    }
}

fn checked(name: &str) -> Result<ServiceName, StartError> {
    ServiceName::new(name).map_err(|error| StartError::new("a name is invalid").caused_by(error))
}

impl fmt::Debug for MeshBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshBuilder")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What was checked and can be started.
struct Plan {
    name: ServiceName,
    clock: Clock,
    rng: Rng,
    recorder: Arc<dyn Recorder>,
    source: Arc<dyn Resolve>,
    registry: Arc<dyn Register>,
    config: Config,
    watched: Option<Watched>,
    coded: Coded,
    settings: Settings,
    secure: Secure,
    connect_timeout: Option<Duration>,
    connections: Option<SetConnections>,
    components: Vec<(Start, Arc<dyn Component>)>,
    snapshot: Snapshot,
    remember: Option<Arc<Remember>>,
    zone: Option<String>,
    callers: Option<BearerTokens>,
    credentials: Vec<(ServiceName, Box<dyn TokenProvider>)>,
}

impl Plan {
    async fn run(mut self, tasks: Tasks, mut started: Started) -> Result<Mesh, StartError> {
        tracing::info!(service = %self.name, "mesh starting");
        let stage = Stage::new();
        let now = self.clock.now();

        let (discovery, driver) = self.discovery();
        tasks.spawn(driver);
        started
            .components(&mut self.components, Start::Discovery)
            .await?;

        // The breakers of endpoints are made with them; these are for keys of the user's own.
        let breakers =
            CircuitBreakerRegistry::new(breaker_policy(&self.settings.defaults().breaker))
                .clock(self.clock.clone())
                .rng(self.rng.clone());
        started
            .components(&mut self.components, Start::Breakers)
            .await?;
        let (components, driver) = Components::builder()
            .clock(self.clock.clone())
            .rng(self.rng.clone())
            .build();
        tasks.spawn(driver);
        started
            .components(&mut self.components, Start::Health)
            .await?;
        started
            .components(&mut self.components, Start::Monitoring)
            .await?;

        let connect = HttpEndpoints::new(tasks.executor());
        let connect = match self.connect_timeout {
            Some(timeout) => connect.connect_timeout(timeout),
            None => connect,
        };
        let connect = match self.connections {
            Some(set) => set(connect),
            None => connect,
        };
        let credentials = self.credentials.into_iter().map(|(service, provider)| {
            let (layer, driver) = CredentialsLayer::new(provider)
                .clock(self.clock.clone())
                .build();
            tasks.spawn(driver);
            (service, layer)
        });
        let core = Core {
            credentials: credentials.collect(),
            callers: self.callers,
            name: self.name,
            clock: self.clock,
            rng: self.rng,
            recorder: self.recorder,
            stage,
            discovery,
            registry: self.registry,
            breakers,
            components,
            discovery_health: OnceLock::new(),
            connect,
            secure: self.secure,
            configured: self.config,
            zone: self.zone,
            coded: self.coded,
            settings: ArcSwap::from_pointee(self.settings),
            reloads: Mutex::default(),
            recall: Mutex::new(self.snapshot.recall()),
            remember: self.remember,
            started_at: now,
            started: tokio::sync::Mutex::new(started),
            tasks,
            serving: Arc::default(),
        };
        core.stage.advance(Lifecycle::Running);
        let core = Arc::new(core);
        core.report_discovery();
        let mesh = Mesh::new(core);
        if let Some(remember) = mesh.core.remember.clone() {
            let (clock, services) = (mesh.core.clock.clone(), Arc::downgrade(&mesh.services));
            mesh.core.tasks.spawn(remember.keep(clock, services));
        }
        if let Some(watched) = self.watched {
            let (core, services) = (Arc::downgrade(&mesh.core), Arc::downgrade(&mesh.services));
            mesh.core.tasks.spawn(watched.follow(core, services));
        }
        Ok(mesh)
    }

    fn discovery(&self) -> (Discovery, tower_mesh_discovery::Driver) {
        let mut discovery = Discovery::builder(Arc::clone(&self.source))
            .clock(self.clock.clone())
            .rng(self.rng.clone());
        if let Some(ttl) = self.config.discovery.negative_ttl {
            discovery = discovery.negative_ttl(ttl);
        }
        if let Some(grace) = self.config.discovery.empty_grace {
            discovery = discovery.empty_grace(grace);
        }
        discovery.build()
    }
}

/// What has been started; dropped, it stops all of it, the last first, but for connections that are in use.
pub(crate) struct Started {
    tasks: Tasks,
    components: Vec<Arc<dyn Component>>,
    pub(crate) registrations: Vec<Announced>,
}

impl Started {
    fn new(tasks: Tasks) -> Self {
        Self {
            tasks,
            components: Vec::new(),
            registrations: Vec::new(),
        }
    }

    /// Starts the users' components of `start`, in the order in which they were given.
    async fn components(
        &mut self,
        components: &mut [(Start, Arc<dyn Component>)],
        start: Start,
    ) -> Result<(), StartError> {
        for (_, component) in components.iter().filter(|(at, _)| *at == start) {
            if let Err(error) = component.start().await {
                let name = component.name().to_owned();
                tracing::error!(component = name, %error, "mesh does not start");
                self.stop().await;
                return Err(StartError::new(format!("{name} did not start")).caused_by(error));
            }
            self.components.push(Arc::clone(component));
        }
        Ok(())
    }

    /// Stops the part that has the name of `new` and starts `new` in its place; if that does not start before `limit` is
    /// over, the old one is started again.
    pub(crate) async fn replace(
        &mut self,
        new: Arc<dyn Component>,
        clock: &Clock,
        limit: Duration,
    ) -> Result<(), StartError> {
        let name = new.name().to_owned();
        let Some(at) = self.components.iter().position(|old| old.name() == name) else {
            let known: Vec<_> = self.components.iter().map(|old| old.name()).collect();
            let what = format!("no part is called {name}, but {}", known.join(", "));
            return Err(StartError::new(what));
        };
        // Out of the list while it does not run: what is in it is stopped once more at the end.
        let old = self.components.remove(at);
        if clock.within(limit, old.stop()).await.is_none() {
            tracing::warn!(
                component = name,
                ?limit,
                "a part does not stop, it is given up"
            );
        }
        let error = match clock.within(limit, caught(new.start())).await {
            Some(Ok(())) => {
                tracing::info!(component = name, "replaced");
                self.components.insert(at, new);
                return Ok(());
            }
            Some(Err(error)) => {
                StartError::new(format!("the new {name} did not start")).caused_by(error)
            }
            None => {
                new.stop().await;
                StartError::new(format!("the new {name} had not started after {limit:?}"))
            }
        };
        match old.start().await {
            Ok(()) => {
                tracing::error!(component = name, %error, "not replaced, the old one runs again");
                self.components.insert(at, old);
                Err(error)
            }
            Err(again) => {
                tracing::error!(component = name, %error, %again, "not replaced, and the old one is gone");
                Err(error.and_gone(again))
            }
        }
    }

    /// Stops all of it, the last first, and waits until nothing runs. Dropped half-way, it can be called again.
    pub(crate) async fn stop(&mut self) {
        while let Some(component) = self.components.last() {
            component.stop().await;
            self.components.pop();
        }
        self.tasks.stop().await;
    }
}

/// What `future` gives; a panic is an error.
async fn caught(future: impl Future<Output = Result<(), BoxError>>) -> Result<(), BoxError> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)))
            .unwrap_or_else(|_| Poll::Ready(Err("it panicked".into())))
    })
    .await
}

impl Drop for Started {
    fn drop(&mut self) {
        self.tasks.let_go();
        let components = std::mem::take(&mut self.components);
        if !components.is_empty() {
            self.tasks.finish(async move {
                for component in components.iter().rev() {
                    component.stop().await;
                }
            });
        }
    }
}
