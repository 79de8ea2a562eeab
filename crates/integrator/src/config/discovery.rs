//! `[discovery]`: where services are found, and where this process is announced.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use serde::Deserialize;
use tower_mesh_core::{Endpoint, ServiceName, Weight};

use super::{ConfigError, DnsConfig, value};

/// `[discovery]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DiscoveryConfig {
    #[serde(deserialize_with = "value::one_or_many")]
    kind: Option<Vec<DiscoveryKind>>,
    #[serde(deserialize_with = "value::time")]
    pub(crate) negative_ttl: Option<Duration>,
    #[serde(deserialize_with = "value::time_or_zero")]
    pub(crate) empty_grace: Option<Duration>,
    #[serde(deserialize_with = "value::names")]
    pub(crate) endpoints: BTreeMap<ServiceName, Vec<EndpointConfig>>,
    pub(crate) file: Option<FileConfig>,
    pub(crate) consul: Option<ConsulConfig>,
    pub(crate) dns: Option<DnsConfig>,
    pub(crate) remember: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DiscoveryKind {
    #[default]
    Memory,
    Static,
    File,
    Consul,
    Dns,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointConfig {
    address: SocketAddr,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    weight: Option<u16>,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
}

/// `[discovery.file]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileConfig {
    pub(crate) path: PathBuf,
    #[serde(deserialize_with = "value::time", default)]
    pub(crate) every: Option<Duration>,
}

/// `[discovery.consul]`
///
/// There is no key for the token itself: whoever may read the file could read it, and whatever prints it could tell it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConsulConfig {
    #[serde(deserialize_with = "value::one_or_many")]
    address: Option<Vec<String>>,
    pub(crate) token_env: Option<String>,
    pub(crate) token_file: Option<String>,
    pub(crate) datacenter: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) ca: Option<String>,
    pub(crate) client_certificate: Option<String>,
    pub(crate) client_key: Option<String>,
    pub(crate) server_name: Option<String>,
    #[serde(deserialize_with = "value::time")]
    pub(crate) wait: Option<Duration>,
    #[serde(deserialize_with = "value::time_or_zero")]
    pub(crate) max_stale: Option<Duration>,
    pub(crate) max_held: Option<NonZeroUsize>,
    pub(crate) max_rate: Option<NonZeroU32>,
    #[serde(deserialize_with = "value::time")]
    pub(crate) forget_after: Option<Duration>,
    pub(crate) checks: Vec<ConsulCheck>,
}

/// One of `discovery.consul.checks`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConsulCheck {
    pub(crate) kind: ConsulCheckKind,
    #[serde(default)]
    pub(crate) path: Option<String>,
    #[serde(default)]
    pub(crate) service: Option<String>,
    #[serde(deserialize_with = "value::time", default)]
    pub(crate) every: Option<Duration>,
    #[serde(deserialize_with = "value::time", default)]
    pub(crate) limit: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ConsulCheckKind {
    Http,
    Tcp,
    Grpc,
}

impl DiscoveryConfig {
    /// The sources, the preferred one first.
    pub(crate) fn kinds(&self) -> &[DiscoveryKind] {
        self.kind.as_deref().unwrap_or(&[DiscoveryKind::Memory])
    }

    pub(crate) fn has(&self, kind: DiscoveryKind) -> bool {
        self.kinds().contains(&kind)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.validate_kinds(DiscoveryKind::is_built_in)?;
        let sections = [
            (
                DiscoveryKind::Static,
                !self.endpoints.is_empty(),
                "endpoints",
            ),
            (DiscoveryKind::File, self.file.is_some(), "file"),
            (DiscoveryKind::Consul, self.consul.is_some(), "consul"),
            (DiscoveryKind::Dns, self.dns.is_some(), "dns"),
        ];
        for (kind, is_said, key) in sections {
            if is_said && !self.has(kind) {
                let kind = kind.name();
                let what = match key {
                    "endpoints" => format!("only `kind = \"{kind}\"` takes endpoints"),
                    _ => format!("it is not used: add \"{kind}\" to `discovery.kind`"),
                };
                return Err(ConfigError::at(&format!("discovery.{key}"), what));
            }
        }
        match &self.file {
            None if self.has(DiscoveryKind::File) => {
                let what = "\"file\" needs to know which: set `discovery.file.path`";
                return Err(ConfigError::at("discovery.kind", what));
            }
            Some(file) if file.path.as_os_str().is_empty() => {
                return Err(ConfigError::at("discovery.file.path", "it is empty"));
            }
            _ => {}
        }
        if self
            .remember
            .as_ref()
            .is_some_and(|path| path.file_name().is_none())
        {
            return Err(ConfigError::at("discovery.remember", "it names no file"));
        }
        match &self.dns {
            None if self.has(DiscoveryKind::Dns) => {
                let what = "\"dns\" needs to know what to ask for: set `discovery.dns.name`";
                return Err(ConfigError::at("discovery.kind", what));
            }
            Some(dns) => dns.validate()?,
            None => {}
        }
        self.consul.as_ref().map_or(Ok(()), ConsulConfig::validate)
    }

    pub(super) fn validate_kinds(
        &self,
        is_built_in: impl Fn(DiscoveryKind) -> bool,
    ) -> Result<(), ConfigError> {
        let kinds = self.kinds();
        let refuse = |what: String| Err(ConfigError::at("discovery.kind", what));
        if kinds.is_empty() {
            return refuse("there has to be a source".to_owned());
        }
        for (at, kind) in kinds.iter().enumerate() {
            if kinds[..at].contains(kind) {
                return refuse(format!("\"{}\" stands there twice", kind.name()));
            }
            if !is_built_in(*kind) {
                let kind = kind.name();
                return refuse(format!(
                    "\"{kind}\" is not built in: switch on the feature `{kind}` of tower-mesh"
                ));
            }
        }
        Ok(())
    }
}

impl DiscoveryKind {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Static => "static",
            Self::File => "file",
            Self::Consul => "consul",
            Self::Dns => "dns",
        }
    }

    fn is_built_in(self) -> bool {
        match self {
            Self::Memory | Self::Static => true,
            Self::File => cfg!(feature = "file"),
            Self::Consul => cfg!(feature = "consul"),
            Self::Dns => cfg!(feature = "dns"),
        }
    }
}

impl EndpointConfig {
    pub(crate) fn endpoint(&self) -> Endpoint {
        let mut endpoint = Endpoint::new(self.address);
        if let Some(id) = &self.id {
            endpoint = endpoint.with_id(id);
        }
        if let Some(weight) = self.weight {
            endpoint = endpoint.with_weight(Weight::new(weight));
        }
        if let Some(zone) = &self.zone {
            endpoint = endpoint.with_zone(zone);
        }
        self.tags
            .iter()
            .fold(endpoint, |endpoint, tag| endpoint.with_tag(tag))
    }
}

impl ConsulCheck {
    fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |what: &str| Err(ConfigError::at("discovery.consul.checks", what));
        let is_http = self.kind == ConsulCheckKind::Http;
        let path = self.path.as_deref().map(|path| path.starts_with('/'));
        if path != is_http.then_some(true) {
            return refuse("a check by HTTP, and no other, needs a path that begins with a slash");
        }
        if self.service.is_some() && self.kind != ConsulCheckKind::Grpc {
            return refuse("only a check by gRPC asks for a service");
        }
        Ok(())
    }

    /// The same, as Consul's agent is told of it.
    #[cfg(feature = "consul")]
    pub(crate) fn check(&self) -> tower_mesh_consul::Check {
        use tower_mesh_consul::Check;
        let check = match (self.kind, &self.path, &self.service) {
            (ConsulCheckKind::Http, path, _) => Check::http(path.as_deref().unwrap_or("/")),
            (ConsulCheckKind::Tcp, ..) => Check::tcp(),
            (ConsulCheckKind::Grpc, _, None) => Check::grpc(),
            (ConsulCheckKind::Grpc, _, Some(service)) => Check::grpc_service(service),
        };
        let check = self.every.map_or(check.clone(), |every| check.every(every));
        self.limit.map_or(check.clone(), |limit| check.limit(limit))
    }
}

impl ConsulConfig {
    /// What of it is about TLS, if anything.
    #[cfg(feature = "consul")]
    pub(crate) fn of_tls(&self) -> Option<&'static str> {
        let keys = [
            ("ca", &self.ca),
            ("client_certificate", &self.client_certificate),
            ("server_name", &self.server_name),
        ];
        let said = keys.into_iter().find(|(_, text)| text.is_some());
        said.map(|(key, _)| key)
    }

    /// Where the agents are, as `CONSUL_HTTP_ADDR` would say it.
    #[cfg(feature = "consul")]
    pub(crate) fn address(&self) -> Option<String> {
        self.address.as_ref().map(|all| all.join(","))
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let at =
            |key: &str, what: &str| Err(ConfigError::at(&format!("discovery.consul.{key}"), what));
        if self.token_env.is_some() && self.token_file.is_some() {
            return at(
                "token_file",
                "the token comes from a file or from the environment",
            );
        }
        let texts = [
            ("token_env", &self.token_env),
            ("token_file", &self.token_file),
            ("datacenter", &self.datacenter),
            ("namespace", &self.namespace),
            ("ca", &self.ca),
            ("client_certificate", &self.client_certificate),
            ("client_key", &self.client_key),
            ("server_name", &self.server_name),
        ];
        for (key, text) in texts {
            if text.as_ref().is_some_and(String::is_empty) {
                return at(key, "it is empty");
            }
        }
        for check in &self.checks {
            check.validate()?;
        }
        if self.client_certificate.is_some() != self.client_key.is_some() {
            return at(
                "client_key",
                "a client's certificate and its key go together",
            );
        }
        if self.address.as_ref().is_some_and(Vec::is_empty) {
            return at("address", "there has to be an address");
        }
        #[cfg(feature = "consul")]
        if let Some(Err(error)) = self
            .address()
            .map(|all| tower_mesh_consul::Consul::new(&all))
        {
            return at("address", &error.to_string());
        }
        Ok(())
    }
}
