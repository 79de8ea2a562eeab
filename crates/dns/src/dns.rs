//! DNS as its users hold it: whom to ask, what for, and how often.

use std::{collections::HashMap, fmt, net::SocketAddr, sync::Arc, time::Duration};

use hickory_resolver::system_conf::read_system_conf;
use tower_mesh_core::{Clock, Rng, ServiceName};

use crate::{
    ask::Servers,
    error::DnsError,
    pace::{Bounds, SHORTEST},
    records::Records,
};

/// DNS as a source ([`Resolve`](tower_mesh_core::Resolve)).
///
/// # Clone
///
/// Clones share which server has answered last, and the 64 questions that may be under way at a time.
#[derive(Clone)]
pub struct Dns {
    pub(crate) servers: Servers,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) bounds: Bounds,
    pub(crate) family: Family,
    pub(crate) max_endpoints: usize,
    records: Option<Records>,
    exceptions: Arc<HashMap<ServiceName, Records>>,
}

/// How servers are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// Over TCP: answers are whole, up to 64 KiB, and nobody can slip in another.
    #[default]
    Tcp,
    /// Over UDP, and over TCP what is marked as truncated. Who leaves endpoints out without marking it, as Consul does
    /// above what fits into a packet, is believed.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// Which addresses of a name are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// Those of IPv4, and those of IPv6 if there are none: a host that has both is one endpoint.
    #[default]
    V4First,
    /// Those of IPv4.
    V4,
    /// Those of IPv6.
    V6,
    /// All: a host that has both is two endpoints.
    Both,
}

impl Dns {
    /// The servers of the system's configuration, which is read now: `/etc/resolv.conf` where there is one. Its other
    /// settings, search domains among them, do not count, nor does `/etc/hosts`.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or names no server.
    pub fn from_system() -> Result<Self, DnsError> {
        let unknown = || DnsError::new("the system's configuration names no server of DNS");
        let (config, _) = read_system_conf().map_err(|error| unknown().caused_by(error))?;
        let servers = config.name_servers().iter();
        let servers = servers.filter_map(|server| {
            let way = server.connections.first()?;
            Some(SocketAddr::new(server.ip, way.port))
        });
        Self::new(servers)
    }

    /// These servers. The one that has answered last is asked first, and up to two others if it does not answer or says
    /// that it cannot.
    ///
    /// # Errors
    ///
    /// If there is none, or the port of one is zero.
    pub fn new(servers: impl IntoIterator<Item = SocketAddr>) -> Result<Self, DnsError> {
        let servers: Vec<_> = servers.into_iter().collect();
        if servers.is_empty() {
            return Err(DnsError::new("there has to be a server of DNS"));
        }
        if let Some(server) = servers.iter().find(|server| server.port() == 0) {
            let message = format!("{server} has no port: write 53, or that of your server");
            return Err(DnsError::new(message));
        }
        Ok(Self {
            servers: Servers::new(servers),
            clock: Clock::default(),
            rng: Rng::default(),
            bounds: Bounds {
                min: Duration::from_secs(5),
                max: Duration::from_secs(60),
            },
            family: Family::default(),
            max_endpoints: 10_000,
            records: None,
            exceptions: Arc::default(),
        })
    }

    /// Which records are asked for. Without, only services with [records of their own](Self::service) are known.
    #[must_use]
    pub fn records(mut self, records: Records) -> Self {
        self.records = Some(records);
        self
    }

    /// Which records are asked for one service, in place of those for all.
    #[must_use]
    pub fn service(mut self, service: ServiceName, records: Records) -> Self {
        Arc::make_mut(&mut self.exceptions).insert(service, records);
        self
    }

    /// How servers are asked; over TCP unless said otherwise.
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.servers.transport = transport;
        self
    }

    /// How long a question may take, shared by the servers that are tried; 5 s unless said otherwise, the default of
    /// resolv.conf.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.servers.limit = limit.max(SHORTEST);
        self
    }

    /// Which addresses of a name are used; those of IPv4 first, unless said otherwise.
    #[must_use]
    pub fn family(mut self, family: Family) -> Self {
        self.family = family;
        self
    }

    /// How long an answer holds at least, also one that nothing is there; 5 s unless said otherwise, Envoy's rate. Consul
    /// says zero of all.
    #[must_use]
    pub fn min_ttl(mut self, ttl: Duration) -> Self {
        self.bounds.min = ttl.max(SHORTEST);
        self
    }

    /// How long an answer holds at most; 60 s unless said otherwise, so that a change is seen within a minute whatever a
    /// zone says.
    #[must_use]
    pub fn max_ttl(mut self, ttl: Duration) -> Self {
        self.bounds.max = ttl.max(SHORTEST);
        self
    }

    /// How many endpoints a service may have; 10,000 unless said otherwise. Answers with more are refused, and what was
    /// known stays.
    #[must_use]
    pub fn max_endpoints(mut self, most: usize) -> Self {
        self.max_endpoints = most;
        self
    }

    /// Keeps time by `clock`.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Draws from `rng`.
    #[must_use]
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    pub(crate) fn records_of(&self, service: &ServiceName) -> Option<&Records> {
        self.exceptions.get(service).or(self.records.as_ref())
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns")
            .field("servers", &self.servers.addresses())
            .field("transport", &self.servers.transport)
            .field("records", &self.records)
            .field("exceptions", &self.exceptions)
            .finish_non_exhaustive()
    }
}
