//! Which services are called over TLS, and who their endpoints have to prove to be.

#[cfg(feature = "tls")]
use std::collections::HashMap;

use tower_mesh_core::{BoxError, ServiceName};
use tower_mesh_http::HttpEndpoints;
#[cfg(feature = "tls")]
use tower_mesh_http::{Protocol, Tls};

use crate::config::{Config, ConfigError, TlsConfig};

/// What was said of TLS, read and checked; fixed while a mesh runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secure {
    /// Of services that have no entry.
    #[cfg(feature = "tls")]
    all: Option<Tls>,
    /// `None` is plain text, by a name that was said.
    #[cfg(feature = "tls")]
    services: HashMap<ServiceName, Option<(Tls, String)>>,
}

#[cfg(feature = "tls")]
impl Secure {
    /// Calls the endpoints of every service over TLS that has nothing said of its own.
    pub(crate) fn set_all(&mut self, tls: Tls) {
        self.all = Some(tls);
    }

    /// Calls the endpoints of `service` over TLS, which have to be `name`.
    pub(crate) fn set(&mut self, service: ServiceName, tls: Tls, name: String) {
        self.services.insert(service, Some((tls, name)));
    }

    /// What was said here, and beneath it what `config` says.
    pub(crate) fn over(mut self, config: &Config) -> Result<Self, ConfigError> {
        let defaults = config.defaults.tls.clone().unwrap_or_default();
        if self.all.is_none() && config.defaults.tls.is_some() && defaults.enabled() {
            self.all = Some(read(&defaults).map_err(|error| error.beneath("defaults.tls"))?);
        }
        for (name, service) in &config.services {
            let Some(said) = &service.tls else { continue };
            if self.services.contains_key(name) {
                continue;
            }
            let said = said.over(&defaults);
            let entry = if said.enabled() {
                let tls =
                    read(&said).map_err(|error| error.beneath(&format!("services.{name}.tls")))?;
                let proves = said.name.unwrap_or_else(|| name.as_str().to_owned());
                Some((tls, proves))
            } else {
                None
            };
            self.services.insert(name.clone(), entry);
        }
        Ok(self)
    }

    pub(crate) fn is_secure(&self, service: &ServiceName) -> bool {
        match self.services.get(service) {
            Some(entry) => entry.is_some(),
            None => self.all.is_some(),
        }
    }

    /// The clients of `service`, over what it is called over.
    ///
    /// # Errors
    ///
    /// If its name is none that an endpoint could prove.
    pub(crate) fn connect(
        &self,
        plain: &HttpEndpoints,
        service: &ServiceName,
    ) -> Result<HttpEndpoints, BoxError> {
        let (tls, name) = match self.services.get(service) {
            Some(Some((tls, name))) => (tls, name.as_str()),
            Some(None) => return Ok(plain.clone()),
            None => match &self.all {
                Some(tls) => (tls, service.as_str()),
                None => return Ok(plain.clone()),
            },
        };
        let secure = plain.clone().protocol(Protocol::Negotiated);
        Ok(secure.tls(tls, name)?)
    }
}

#[cfg(not(feature = "tls"))]
#[allow(clippy::unused_self, clippy::unnecessary_wraps)] // As it is with TLS.
impl Secure {
    /// Refuses what is not built in: it must not end in plain text.
    pub(crate) fn over(self, config: &Config) -> Result<Self, ConfigError> {
        let missing = |section: &str| {
            let what = "TLS is not built in: switch on the feature `tls`";
            Err(ConfigError::at(&format!("{section}.tls"), what))
        };
        if config.defaults.tls.as_ref().is_some_and(TlsConfig::enabled) {
            return missing("defaults");
        }
        let mut services = config.services.iter();
        match services.find(|(_, service)| service.tls.as_ref().is_some_and(TlsConfig::enabled)) {
            Some((name, _)) => missing(&format!("services.{name}")),
            None => Ok(self),
        }
    }

    pub(crate) fn is_secure(&self, _: &ServiceName) -> bool {
        false
    }

    pub(crate) fn connect(
        &self,
        plain: &HttpEndpoints,
        _: &ServiceName,
    ) -> Result<HttpEndpoints, BoxError> {
        Ok(plain.clone())
    }
}

#[cfg(feature = "tls")]
fn read(said: &TlsConfig) -> Result<Tls, ConfigError> {
    let file = |key, path: &std::path::Path| {
        std::fs::read(path).map_err(|error| {
            ConfigError::at(key, format!("cannot read {}: {error}", path.display()))
        })
    };
    let tls = match &said.ca {
        Some(path) => Tls::trusting(&file("ca", path)?)
            .map_err(|error| ConfigError::at("ca", error.to_string()))?,
        None => Tls::system().map_err(|error| ConfigError::at("ca", error.to_string()))?,
    };
    match (&said.certificate, &said.key) {
        (None, None) => Ok(tls),
        (Some(certificate), Some(key)) => tls
            .client_certificate(&file("certificate", certificate)?, &file("key", key)?)
            .map_err(|error| ConfigError::at("certificate", error.to_string())),
        (Some(_), None) => Err(ConfigError::at("key", "the certificate's key is missing")),
        (None, Some(_)) => Err(ConfigError::at(
            "certificate",
            "the key's certificate is missing",
        )),
    }
}
