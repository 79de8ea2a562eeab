//! What a registry offers to those who want to be found.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use crate::{
    endpoint::{Endpoint, Health},
    name::ServiceName,
    outcome::BoxError,
};

/// A boxed future, for traits that are used behind `dyn` and never on the path of a call.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Announces an instance of a service.
pub trait Register: Send + Sync + 'static {
    /// Announces `instance`. It can be found when the future completes.
    ///
    /// Registering an instance again replaces its description.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave the instance registered until its TTL has passed.
    fn register(&self, instance: Instance) -> BoxFuture<'_, Result<Registration, RegisterError>>;
}

/// One instance of a service that wants to be found.
#[derive(Clone, Debug)]
pub struct Instance {
    service: ServiceName,
    endpoint: Endpoint,
    ttl: Option<Duration>,
}

impl Instance {
    /// An instance of `service` at `endpoint`, known until it is deregistered.
    pub const fn new(service: ServiceName, endpoint: Endpoint) -> Self {
        Self {
            service,
            endpoint,
            ttl: None,
        }
    }

    /// It counts as critical when no heartbeat has come for `ttl`.
    #[must_use]
    pub const fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// The service it is an instance of.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Where it answers, and how it is described.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How long it is believed without a heartbeat; for ever if `None`.
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl
    }
}

/// What a backend keeps of an instance that it has registered.
pub trait Registered: Send + Sync {
    /// Tells the registry that the instance lives, and how it feels.
    fn heartbeat(&self, health: Health) -> BoxFuture<'_, Result<(), RegisterError>>;

    /// Takes the instance out of the registry; no resolver finds it when the future completes.
    fn deregister(&self) -> BoxFuture<'_, Result<(), RegisterError>>;

    /// Takes the instance out of the registry as well as can be done without waiting: the guard was dropped.
    fn abandon(&self);
}

/// An instance that is registered: keep it as long as the instance is to be found.
///
/// Call [`deregister`](Self::deregister) before the instance stops answering. Dropped without that, it tries to
/// deregister as well as can be done without waiting.
#[must_use = "dropping it deregisters the instance"]
pub struct Registration {
    instance: Instance,
    registered: Option<Box<dyn Registered>>,
}

impl Registration {
    /// Wraps what the backend keeps.
    pub fn new(instance: Instance, registered: impl Registered + 'static) -> Self {
        Self {
            instance,
            registered: Some(Box::new(registered)),
        }
    }

    /// What was registered.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Tells the registry that the instance lives, and how it feels; due well within every
    /// [`ttl`](Instance::ttl).
    ///
    /// # Errors
    ///
    /// If the registry cannot be reached or no longer knows the instance.
    pub async fn heartbeat(&self, health: Health) -> Result<(), RegisterError> {
        match &self.registered {
            Some(registered) => registered.heartbeat(health).await,
            None => Ok(()),
        }
    }

    /// Takes the instance out of the registry; no resolver finds it afterwards.
    ///
    /// # Errors
    ///
    /// If the registry cannot be reached: it then forgets the instance when its TTL has passed.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, it is deregistered as by `Drop`.
    pub async fn deregister(mut self) -> Result<(), RegisterError> {
        if let Some(registered) = &self.registered {
            registered.deregister().await?;
        }
        self.registered = None;
        Ok(())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(registered) = &self.registered {
            registered.abandon();
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// A registry could not do what an instance asked for.
#[derive(Debug)]
pub struct RegisterError {
    message: Box<str>,
    source: Option<BoxError>,
}

impl RegisterError {
    /// An error that says what failed and what to do about it.
    pub fn new(message: impl Into<Box<str>>) -> Self {
        Self {
            message: message.into(),
            source: None,
        }
    }

    /// The same, with its cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RegisterError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
