//! `[services.NAME.tls]`: who a service's endpoints have to prove to be, and who this process is to them.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Config, ConfigError};

/// `[defaults.tls]` and `[services.NAME.tls]`. Paths only: whatever prints it tells no secret.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsConfig {
    enabled: Option<bool>,
    pub(crate) name: Option<String>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

impl TlsConfig {
    /// Whoever writes the section means it.
    pub(crate) fn enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// What is said here, and else what `base` says.
    #[cfg(feature = "tls")]
    pub(crate) fn over(&self, base: &Self) -> Self {
        // A certificate goes with its key.
        let own = self.certificate.is_some() || self.key.is_some();
        let identity = if own { self } else { base };
        Self {
            enabled: self.enabled.or(base.enabled),
            name: self.name.clone(),
            ca: self.ca.clone().or_else(|| base.ca.clone()),
            certificate: identity.certificate.clone(),
            key: identity.key.clone(),
        }
    }
}

impl Config {
    /// Everything that is said of TLS.
    pub(crate) fn tls(&self) -> impl Iterator<Item = (Option<&str>, &TlsConfig)> {
        let services = self.services.iter();
        let services = services.map(|(name, service)| (Some(name.as_str()), &service.tls));
        [(None, &self.defaults.tls)]
            .into_iter()
            .chain(services)
            .filter_map(|(name, tls)| Some((name, tls.as_ref()?)))
    }

    pub(super) fn validate_tls(&self) -> Result<(), ConfigError> {
        match &self.defaults.tls {
            Some(TlsConfig { name: Some(_), .. }) => Err(ConfigError::at(
                "defaults.tls.name",
                "services have a name each: move it below [services.NAME.tls]",
            )),
            _ => Ok(()),
        }
    }
}
