//! What a builder says, checked and then started.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use tower_mesh_breaker::CircuitBreakerRegistry;
use tower_mesh_core::{Clock, MemoryRegistry, Recorder, Register, Resolve, Rng, ServiceName};
use tower_mesh_discovery::Discovery;
use tower_mesh_health::Components;
use tower_mesh_http::{
    HttpEndpoints,
    credentials::{CredentialsLayer, TokenProvider},
    server::BearerTokens,
};

use super::{MeshBuilder, SetConnections};
use crate::{
    config::{Config, ConfigError},
    error::StartError,
    lifecycle::{Component, Lifecycle, Stage, Start},
    mesh::{Core, Mesh},
    reload::Watched,
    remember::Remember,
    secure::Secure,
    settings::{Coded, Settings},
    snapshot::Snapshot,
    sources::Sources,
    stack::breaker_policy,
    started::Started,
    tasks::Tasks,
};

/// What was checked and can be started.
pub(super) struct Plan {
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
    /// Checks all that was said of a mesh. Nothing runs yet.
    pub(super) fn of(
        builder: MeshBuilder,
        clock: Clock,
        remember: Option<Arc<Remember>>,
    ) -> Result<Self, StartError> {
        let config = builder.config.map_err(invalid)?;
        let name = name_of(&builder.name, &config)?;
        let file = builder.file;
        // What can be found out only now: what stands in other files, and beside what was said in code.
        let located = |error: ConfigError| {
            invalid(match &file {
                Some((file, Some(text))) => error.locate(text).in_file(file),
                _ => error,
            })
        };
        let (found, announced) = (builder.discovery, builder.registry);
        let Sources { source, registry } =
            sources(found, announced, &config, &clock, &builder.rng).map_err(located)?;
        let coded = Coded {
            defaults: builder.defaults.unwrap_or_default(),
            policies: by_name(builder.policies)?,
        };
        let settings = coded
            .with(&config, 1)
            .map_err(|error| StartError::new("a policy is invalid").caused_by(error))?;
        #[allow(unused_mut)] // By TLS.
        let mut secure = builder.secure;
        #[cfg(feature = "tls")]
        for (service, tls, name) in builder.secured {
            secure.set(checked(&service)?, tls, name);
        }
        let secure = secure.over(&config).map_err(located)?;
        let watched = watched(builder.watch, file)?;
        if builder.connect_timeout == Some(Duration::ZERO) {
            return Err(StartError::new("connect_timeout must be above zero"));
        }
        let callers = config.server.callers().map_err(invalid)?;
        let source = match &remember {
            Some(remember) => Arc::new(remember.over(source, &clock)),
            None => source,
        };
        let learned = || remember.as_ref()?.learned();
        let snapshot = builder.snapshot.or_else(learned).unwrap_or_default();
        snapshot
            .check()
            .map_err(|error| StartError::new("nothing can be restored").caused_by(error))?;
        Ok(Self {
            name,
            clock,
            rng: builder.rng,
            recorder: builder.recorder,
            source,
            registry,
            watched,
            coded,
            settings,
            secure,
            connect_timeout: builder.connect_timeout,
            connections: builder.connections,
            components: builder.components,
            snapshot,
            remember,
            zone: builder.zone.or_else(|| config.zone.clone()),
            callers,
            credentials: by_name(builder.credentials)?,
            config,
        })
    }

    /// Starts it in order. Dropped half-way, `started` is stopped.
    pub(super) async fn run(
        mut self,
        tasks: Tasks,
        mut started: Started,
    ) -> Result<Mesh, StartError> {
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

fn invalid(error: ConfigError) -> StartError {
    StartError::new("the configuration is invalid").caused_by(error)
}

fn checked(name: &str) -> Result<ServiceName, StartError> {
    ServiceName::new(name).map_err(|error| StartError::new("a name is invalid").caused_by(error))
}

/// What was said of services, by names that are some.
fn by_name<T, C>(said: BTreeMap<String, T>) -> Result<C, StartError>
where
    C: FromIterator<(ServiceName, T)>,
{
    let checked = |(name, what): (String, T)| Ok((checked(&name)?, what));
    said.into_iter().map(checked).collect()
}

fn name_of(said: &str, config: &Config) -> Result<ServiceName, StartError> {
    match (said, &config.service) {
        ("", Some(name)) => Ok(name.clone()),
        ("", None) => Err(StartError::new("the mesh has no name: set `service`")),
        (name, _) => checked(name),
    }
}

/// Where services are found and instances announced: as was said in code, else as configured.
fn sources(
    source: Option<Arc<dyn Resolve>>,
    registry: Option<Arc<dyn Register>>,
    config: &Config,
    clock: &Clock,
    rng: &Rng,
) -> Result<Sources, ConfigError> {
    match (source, registry) {
        (Some(source), Some(registry)) => Ok(Sources { source, registry }),
        (source, registry) => {
            let embedded = MemoryRegistry::with_clock(clock.clone());
            let configured = Sources::new(&config.discovery, &embedded, clock, rng)?;
            Ok(Sources {
                source: source.unwrap_or(configured.source),
                registry: registry.unwrap_or(configured.registry),
            })
        }
    }
}

fn watched(
    every: Option<Duration>,
    file: Option<(PathBuf, Option<String>)>,
) -> Result<Option<Watched>, StartError> {
    match (every, file) {
        (None, _) => Ok(None),
        (Some(Duration::ZERO), _) => Err(StartError::new("watch must be above zero")),
        (Some(_), None) => Err(StartError::new("there is no file to watch")),
        (Some(every), Some((file, text))) => Ok(Some(Watched { file, every, text })),
    }
}
