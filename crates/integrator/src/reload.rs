//! Another configuration for a mesh that runs.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use crate::{
    config::{Config, ConfigError},
    mesh::{Core, Mesh, Services},
    settings::{Changes, Settings},
};

impl Mesh {
    /// What [`reload`](Self::reload) of this configuration would change; nothing changes.
    ///
    /// # Errors
    ///
    /// As `reload`.
    pub fn check(&self, config: &Config) -> Result<Changes, ConfigError> {
        let old = self.core.settings.load();
        Ok(old.changes_to(&self.core.next(config)?))
    }

    /// Puts another configuration in force: policies of services, profiles, operations.
    ///
    /// It is checked as a whole first. Each call sees the old settings or the new ones, never some of each: calls in
    /// flight end as they began, all that begin afterwards, by clients that exist already too, follow the new ones.
    /// Connections, loads, breakers and what is not changed stay as they are. A retry budget that is changed begins anew.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if it is invalid, or would change what takes a new start: name and zone of the process, what is said
    /// of TLS, and `[discovery]`. The settings in force stay, and the [status](Self::status) tells of it.
    pub fn reload(&self, config: &Config) -> Result<Changes, ConfigError> {
        reload(&self.core, &self.services, config)
    }
}

impl Core {
    /// The settings that would follow with `config`.
    fn next(&self, config: &Config) -> Result<Settings, ConfigError> {
        let restart = |key| {
            let what = "a mesh that runs cannot change it: start a new one";
            Err(ConfigError::at(key, what))
        };
        if config
            .service
            .as_ref()
            .is_some_and(|name| *name != self.name)
        {
            return restart("service");
        }
        if config.zone != self.configured.zone {
            return restart("zone");
        }
        if config.discovery != self.configured.discovery {
            return restart("discovery");
        }
        if !config.tls().eq(self.configured.tls()) {
            return restart("tls");
        }
        if config.server != self.configured.server {
            return restart("server");
        }
        let revision = self.settings.load().revision + 1;
        self.coded.with(config, revision)
    }
}

fn reload(core: &Core, services: &Services, config: &Config) -> Result<Changes, ConfigError> {
    let mut reloads = core.reloads.lock().unwrap_or_else(PoisonError::into_inner);
    let next = core.next(config);
    reloads.error = next.as_ref().err().map(ToString::to_string);
    let next = next.inspect_err(|error| tracing::error!(%error, "configuration refused"))?;
    let changes = core.settings.load().changes_to(&next);
    // Services that are made from here on see the new settings; those that are there are told.
    core.settings.store(Arc::new(next));
    for service in services.all() {
        service.follow(&core.settings.load());
    }
    let revision = changes.revision;
    tracing::info!(
        revision,
        changed = changes.changes.len(),
        "configuration in force"
    );
    Ok(changes)
}

/// How reloads went. Locked by whoever reloads: one after the other.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    /// Why the last one was refused, if it was.
    pub(crate) error: Option<String>,
}

/// A configuration file that is followed.
pub(crate) struct Watched {
    pub(crate) file: PathBuf,
    pub(crate) every: Duration,
    /// What stood in it when it was last read, if it could be.
    pub(crate) text: Option<String>,
}

impl Watched {
    /// Puts what the file says in force whenever that is something else, as long as the mesh is there.
    ///
    /// The text is compared, not a time or a notice from the system: it may come by a rename, a symbolic link or a network.
    pub(crate) async fn follow(mut self, core: Weak<Core>, services: Weak<Services>) {
        loop {
            let Some(clock) = core.upgrade().map(|core| core.clock.clone()) else {
                return;
            };
            clock.sleep(self.every).await;
            let read = tokio::fs::read_to_string(&self.file).await;
            let (Some(core), Some(services)) = (core.upgrade(), services.upgrade()) else {
                return;
            };
            match read {
                Ok(text) if self.text.as_ref() == Some(&text) => {}
                Ok(text) => {
                    let config = Config::parse(&text).map_err(|error| error.in_file(&self.file));
                    self.text = Some(text);
                    // What is refused has been logged, and stands in the status.
                    let _ = match config {
                        Ok(config) => reload(&core, &services, &config).map(drop),
                        Err(error) => Err(core.refuse(error)),
                    };
                }
                Err(error) if self.text.take().is_some() => {
                    core.refuse(ConfigError::file(&self.file, &error));
                }
                Err(_) => {}
            }
        }
    }
}

impl Core {
    /// Notes that a configuration was refused.
    fn refuse(&self, error: ConfigError) -> ConfigError {
        tracing::error!(%error, "configuration refused");
        let mut reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        reloads.error = Some(error.to_string());
        error
    }

    /// Why the last configuration was refused, if it was.
    pub(crate) fn refused(&self) -> Option<String> {
        let reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        reloads.error.clone()
    }
}
