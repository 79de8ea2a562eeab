//! `[discovery.dns]`: whom to ask, and what for.

use std::{collections::BTreeMap, net::IpAddr, net::SocketAddr, num::NonZeroU16, time::Duration};

use serde::Deserialize;
use tower_mesh_core::ServiceName;

use super::{ConfigError, value};

/// `[discovery.dns]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DnsConfig {
    #[serde(deserialize_with = "value::one_or_many")]
    servers: Option<Vec<String>>,
    name: Option<String>,
    port: Option<NonZeroU16>,
    #[serde(deserialize_with = "value::names")]
    services: BTreeMap<ServiceName, RecordsConfig>,
    transport: Option<TransportConfig>,
    family: Option<FamilyConfig>,
    #[serde(deserialize_with = "value::time")]
    min_ttl: Option<Duration>,
    #[serde(deserialize_with = "value::time")]
    max_ttl: Option<Duration>,
    #[serde(deserialize_with = "value::time")]
    time_limit: Option<Duration>,
}

/// An entry of `[discovery.dns.services]`; without a port it is SRV records that are meant.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct RecordsConfig {
    name: String,
    #[serde(default)]
    port: Option<NonZeroU16>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum TransportConfig {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum FamilyConfig {
    V4First,
    V4,
    V6,
    Both,
}

const PORT: u16 = 53;

fn at(key: &str, what: impl Into<String>) -> ConfigError {
    ConfigError::at(&format!("discovery.dns.{key}"), what)
}

impl DnsConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        match &self.name {
            None if self.port.is_some() => {
                return Err(at(
                    "port",
                    "it is the port of a name: set `discovery.dns.name`",
                ));
            }
            None if self.services.is_empty() => {
                let what = "it does not say what to ask for: set `discovery.dns.name`";
                return Err(ConfigError::at("discovery.dns", what));
            }
            Some(name) if !name.contains("{service}") => {
                let what = "every service would be the same: write \"{service}\" where its name stands, or move it \
                            below [discovery.dns.services]";
                return Err(at("name", what));
            }
            _ => {}
        }
        if let (Some(min), Some(max)) = (self.min_ttl, self.max_ttl)
            && min > max
        {
            let what = format!("it cannot be longer ({min:?}) than `max_ttl` ({max:?})");
            return Err(at("min_ttl", what));
        }
        self.servers()?;
        #[cfg(feature = "dns")]
        self.over(tower_mesh_dns::Dns::new([([127, 0, 0, 1], PORT).into()]).map_err(refused)?)?;
        Ok(())
    }

    /// Those that are said, if any.
    fn servers(&self) -> Result<Option<Vec<SocketAddr>>, ConfigError> {
        let Some(texts) = &self.servers else {
            return Ok(None);
        };
        if texts.is_empty() {
            return Err(at("servers", "there has to be a server"));
        }
        let server = |text: &String| match (text.parse::<SocketAddr>(), text.parse::<IpAddr>()) {
            (Ok(server), _) if server.port() > 0 => Ok(server),
            (_, Ok(ip)) => Ok(SocketAddr::new(ip, PORT)),
            _ => {
                let what = format!("{text:?} is no address: write 10.0.0.2 or 127.0.0.1:8600");
                Err(at("servers", what))
            }
        };
        texts.iter().map(server).collect::<Result<_, _>>().map(Some)
    }
}

#[cfg(feature = "dns")]
mod build {
    use tower_mesh_dns::{Dns, DnsError, Family, Records, Transport};

    use super::{ConfigError, DnsConfig, FamilyConfig, NonZeroU16, TransportConfig, at};

    pub(super) fn refused(error: DnsError) -> ConfigError {
        ConfigError::at("discovery.dns", error.to_string())
    }

    fn records(key: &str, name: &str, port: Option<NonZeroU16>) -> Result<Records, ConfigError> {
        let records = match port {
            None => Records::srv(name),
            Some(port) => Records::addresses(name, port.get()),
        };
        records.map_err(|error| at(key, error.to_string()))
    }

    impl DnsConfig {
        /// What is asked for.
        ///
        /// # Errors
        ///
        /// What can be found out only now: the system's configuration names no server.
        pub(crate) fn source(&self) -> Result<Dns, ConfigError> {
            let dns = match self.servers()? {
                Some(servers) => Dns::new(servers),
                None => Dns::from_system(),
            };
            self.over(
                dns.map_err(|error| at("servers", format!("{error}: say here where they are")))?,
            )
        }

        /// `dns`, told all but who its servers are.
        pub(super) fn over(&self, mut dns: Dns) -> Result<Dns, ConfigError> {
            if let Some(name) = &self.name {
                dns = dns.records(records("name", name, self.port)?);
            }
            for (service, said) in &self.services {
                let key = format!("services.{service}.name");
                dns = dns.service(service.clone(), records(&key, &said.name, said.port)?);
            }
            if let Some(transport) = self.transport {
                dns = dns.transport(match transport {
                    TransportConfig::Tcp => Transport::Tcp,
                    TransportConfig::Udp => Transport::Udp,
                });
            }
            if let Some(family) = self.family {
                dns = dns.family(match family {
                    FamilyConfig::V4First => Family::V4First,
                    FamilyConfig::V4 => Family::V4,
                    FamilyConfig::V6 => Family::V6,
                    FamilyConfig::Both => Family::Both,
                });
            }
            if let Some(ttl) = self.min_ttl {
                dns = dns.min_ttl(ttl);
            }
            if let Some(ttl) = self.max_ttl {
                dns = dns.max_ttl(ttl);
            }
            Ok(match self.time_limit {
                Some(limit) => dns.time_limit(limit),
                None => dns,
            })
        }
    }
}

#[cfg(feature = "dns")]
use build::refused;
