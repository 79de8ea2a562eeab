//! The configuration of a mesh: a TOML file or code, checked as a whole before anything starts.
//!
//! Every key is optional; what is not said keeps its [default](crate::Policy). Durations are texts such as `"500ms"` or
//! `"2s"`, shares are numbers between 0 and 1. A key that does not exist, a duration of zero, a share above 1 and
//! settings that contradict each other are errors that name the key and the line.
//!
//! ```toml
//! service = "storefront"            # the name of this process in the mesh
//! zone = "eu-west/1a"               # where it runs: calls stay near while there is room
//!
//! [discovery]
//! kind = "static"                   # where services are found; see below for other kinds, and for several
//! negative_ttl = "3s"               # how long an unknown service is not looked up again
//! empty_grace = "30s"               # how long the last endpoints are held when an answer has none
//!
//! [discovery.endpoints]
//! orders = [{ address = "127.0.0.1:8081" }, { address = "127.0.0.1:8082", weight = 3 }]
//!
//! [defaults]                        # for every service
//! profile = "internal"              # or "external", "batch": where the defaults come from
//! timeout = "10s"
//! balance = "best-of-three"
//! panic = { max_out = 0.5, min_healthy = 1 }
//! min_nearby = 3                    # fewer endpoints in the own zone are joined with those further away
//! retry = { attempts = 3, per_try_timeout = "2s", budget = 0.1 }
//!
//! [services.orders]                 # for one service, over the defaults
//! timeout = "2s"
//! subset = { size = 20 }            # of its many endpoints this process calls twenty
//! hash = { header = "x-user", seed = 7, capacity = 1.5 } # what one user asks goes to one endpoint
//!
//! [services.orders.health]          # each endpoint is asked; unless said none is
//! check = "http"                    # or "tcp", "grpc"
//! path = "/healthz"
//! interval = "5s"
//!
//! [services.orders.operations.GetOrder]
//! method = "GET"
//! path = "/orders/current"
//! timeout = "500ms"
//! ```
//!
//! # Where services are found
//!
//! `discovery.kind` is one of these, or a list of them in the order of preference, as in `kind = ["consul", "file"]`: the
//! first that knows a service is used for it, see [`Preferred`](crate::discovery::Preferred).
//!
//! | kind | finds | registers | needs |
//! |---|---|---|---|
//! | `memory` (the default) | what this process registers | there | |
//! | `static` | `discovery.endpoints` | in memory | |
//! | `file` | what the files at `discovery.file.path` say, and follows them | in memory | the feature `file` |
//! | `consul` | what Consul's agent says | with the same agent | the feature `consul` |
//! | `dns` | what SRV records, or addresses, say of `discovery.dns.name` | in memory | the feature `dns` |
//!
//! Where Consul is one of them, it is the registry of [`Mesh::register`](crate::Mesh::register). A section of a kind that is
//! not used is an error, so that nobody waits for it to do something.
//!
//! ```toml
//! [discovery]
//! kind = ["consul", "file"]
//! remember = "mesh.memory"          # what is known, for a start while the registry is away; see below
//!
//! [discovery.file]
//! path = "endpoints.d"              # a TOML or JSON file, or a directory of such
//! every = "1s"                      # how often to look whether it has changed
//!
//! [discovery.consul]                # all of it may be left away
//! address = ["10.0.0.1:8500", "10.0.0.2:8500"]  # or one; else CONSUL_HTTP_ADDR, else 127.0.0.1:8500
//! token_file = "consul.token"       # or token_env = "NAME"; else CONSUL_HTTP_TOKEN_FILE or CONSUL_HTTP_TOKEN
//! datacenter = "dc1"                # the agent's own
//! namespace = "team"                # else CONSUL_NAMESPACE
//! ca = "ca.pem"                     # whom to believe at https:// (feature `tls`): a file or a directory; else CONSUL_CACERT
//!                                   # or CONSUL_CAPATH, else whom the system believes
//! client_certificate = "a.pem"      # who we are, where an agent asks; else CONSUL_CLIENT_CERT
//! client_key = "a.key"              # else CONSUL_CLIENT_KEY
//! server_name = "server.dc1.consul" # for which agents have their certificates, if not for their address
//! wait = "5m"                       # how long the agent holds a request for a change
//! max_stale = "1m"                  # how old the answer of a server without a leader may be
//! max_held = 128                    # how many requests the agents hold at a time
//! max_rate = 20                     # how many requests a second they get where more services than that are followed
//! checks = [{ kind = "http", path = "/healthz", every = "10s", limit = "5s" }]  # what the agent asks each instance that is
//!                                   # registered, beside its heartbeats; also "tcp" and "grpc", which may name a `service`
//! forget_after = "10m"              # when Consul forgets who has stopped; ten times the ttl, at least 1 min
//! ```
//!
//! In the names of DNS records `{service}` stands for that of the service. A name without a port means SRV records, one with a
//! port its addresses. See [`Dns`](https://docs.rs/tower-mesh-dns) for what they come to.
//!
//! ```toml
//! [discovery]
//! kind = ["dns", "static"]
//!
//! [discovery.dns]
//! servers = "127.0.0.1:8600"        # or a list; else those of the system, such as /etc/resolv.conf
//! name = "{service}.service.consul" # its SRV records; with `port = 8080` its addresses
//! transport = "tcp"                 # or "udp": then TCP for what is truncated
//! family = "v4-first"               # of a host's addresses; or "v4", "v6", "both"
//! min_ttl = "5s"                    # how long an answer holds at least
//! max_ttl = "60s"                   # and at most
//! time_limit = "5s"                 # for a question
//!
//! [discovery.dns.services]          # in place of `name`
//! billing = { name = "billing.example.com", port = 443 }
//!
//! [discovery.endpoints]
//! legacy = [{ address = "10.0.0.5:80" }]
//! ```
//!
//! The token itself cannot stand in a configuration, and is never printed. Relative paths begin where the process runs.
//!
//! # TLS
//!
//! With a section `tls` (and the feature of that name) the endpoints of a service are called over TLS and nothing else, by
//! HTTP/2 or HTTP/1.1 as they prefer. An endpoint has to prove the name of its service, or `name`, never its address. The files are read
//! once: a certificate that is replaced takes a new start. Active checks go over TLS as calls do (`tcp` only connects).
//!
//! ```toml
//! [defaults.tls]                    # for every service
//! ca = "ca.pem"                     # who is trusted; else whom the system trusts
//! certificate = "storefront.pem"    # shown to servers that ask, with its key
//! key = "storefront.key"
//!
//! [services.orders.tls]
//! name = "orders.internal"          # what its endpoints prove; else "orders"
//!
//! [services.legacy.tls]
//! enabled = false                   # plain text, though the defaults say otherwise
//! ```
//!
//! # How this process answers
//!
//! What [`Mesh::server_layer`](crate::Mesh::server_layer) begins from; its setters go before it. It is read once: other
//! settings need a restart.
//!
//! ```toml
//! [server]                          # all of it may be left away
//! timeout = "30s"                   # how long a request may take, until its answer begins; unless said, its sender says
//! max_in_flight = 1024              # how many may run at once
//! adaptive = true                   # whether fewer may, while requests outlast `timeout`
//! believe_priority = "default"      # how much a request may say that it matters: or "critical", "sheddable"
//! report_load = false               # whether each answer says how busy this process is
//! token_env = "ORDERS_TOKEN"        # or token_file = "path": who calls has to show this bearer token; unless said nobody has to
//! grpc_services = ["shop.Orders"]   # what gRPC's health knows; unless said, every name is the process
//! ```
//!
//! # What is remembered
//!
//! With `discovery.remember` a mesh writes the endpoints of the services in use, with all that the registry says of them, and
//! what it has [learned](crate::Snapshot) of them into that file: each 30 s and when it is shut down, always as a whole,
//! readable by its owner alone. A mesh that starts while the registry does not answer begins with them: 250 ms after the
//! first error, or after 2 s of silence. The status says so, and how old they are, until the registry answers. Endpoints that it has not
//! stood by for a day are forgotten. A file that is damaged, or was written by another version, is reported in log and
//! status and replaced; one that is somebody else's is reported and left alone. Each process needs a file of its own.

mod discovery;
mod dns;
mod error;
mod server;
mod tls;
pub(crate) mod value;

use std::{
    collections::BTreeMap,
    fmt,
    num::{NonZeroU32, NonZeroUsize},
    path::Path,
    time::Duration,
};

use serde::Deserialize;
use tower_mesh_balance::Strategy;
use tower_mesh_core::{Ratio, ServiceName};

pub use self::error::ConfigError;
pub(crate) use self::{
    discovery::{ConsulConfig, DiscoveryConfig, DiscoveryKind, FileConfig},
    dns::DnsConfig,
    server::ServerConfig,
    tls::TlsConfig,
};
use crate::{
    policy::{Check, Policy},
    profile::Profile,
};

/// Everything that can be said in a configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    #[serde(deserialize_with = "value::name")]
    pub(crate) service: Option<ServiceName>,
    pub(crate) zone: Option<String>,
    pub(crate) discovery: DiscoveryConfig,
    pub(crate) server: ServerConfig,
    pub(crate) defaults: ServiceConfig,
    #[serde(deserialize_with = "value::names")]
    pub(crate) services: BTreeMap<ServiceName, ServiceConfig>,
}

/// `[defaults]` and `[services.NAME]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServiceConfig {
    #[serde(deserialize_with = "value::profile")]
    profile: Option<Profile>,
    #[serde(deserialize_with = "value::time")]
    timeout: Option<Duration>,
    #[serde(deserialize_with = "value::strategy")]
    balance: Option<Strategy>,
    min_nearby: Option<usize>,
    subset: SubsetConfig,
    hash: HashConfig,
    panic: PanicConfig,
    retry: RetryConfig,
    breaker: BreakerConfig,
    ejection: EjectionConfig,
    health: HealthConfig,
    #[serde(deserialize_with = "value::time_or_zero")]
    slow_start: Option<Duration>,
    hedge: HedgeConfig,
    limit: LimitConfig,
    pub(crate) tls: Option<TlsConfig>,
    pub(crate) operations: BTreeMap<String, Operation>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SubsetConfig {
    size: Option<NonZeroUsize>,
    client: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HashConfig {
    #[serde(deserialize_with = "value::header")]
    header: Option<http::HeaderName>,
    seed: Option<u64>,
    capacity: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PanicConfig {
    #[serde(deserialize_with = "value::ratio")]
    max_out: Option<Ratio>,
    min_healthy: Option<usize>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RetryConfig {
    attempts: Option<NonZeroU32>,
    #[serde(deserialize_with = "value::time")]
    per_try_timeout: Option<Duration>,
    #[serde(deserialize_with = "value::ratio")]
    budget: Option<Ratio>,
    min_per_second: Option<u32>,
    #[serde(deserialize_with = "value::time")]
    backoff: Option<Duration>,
    #[serde(deserialize_with = "value::time")]
    max_backoff: Option<Duration>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BreakerConfig {
    consecutive_failures: Option<NonZeroU32>,
    #[serde(deserialize_with = "value::ratio")]
    failure_rate: Option<Ratio>,
    #[serde(deserialize_with = "value::time")]
    open_for: Option<Duration>,
    #[serde(deserialize_with = "value::time")]
    max_open: Option<Duration>,
    service: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EjectionConfig {
    enabled: Option<bool>,
    #[serde(deserialize_with = "value::ratio")]
    failure_rate: Option<Ratio>,
    #[serde(deserialize_with = "value::time")]
    eject_for: Option<Duration>,
    #[serde(deserialize_with = "value::time")]
    max_eject: Option<Duration>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HealthConfig {
    #[serde(deserialize_with = "value::check")]
    check: Option<Check>,
    #[serde(deserialize_with = "value::path")]
    path: Option<http::uri::PathAndQuery>,
    #[serde(deserialize_with = "value::time")]
    interval: Option<Duration>,
    #[serde(deserialize_with = "value::time")]
    time_limit: Option<Duration>,
    unhealthy_after: Option<NonZeroU32>,
    healthy_after: Option<NonZeroU32>,
    grpc_service: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HedgeConfig {
    #[serde(deserialize_with = "value::ratio")]
    percentile: Option<Ratio>,
    attempts: Option<NonZeroU32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitConfig {
    max_in_flight: Option<NonZeroUsize>,
    adaptive: Option<bool>,
    queue: Option<usize>,
    #[serde(deserialize_with = "value::time")]
    max_wait: Option<Duration>,
}

/// How an operation of a service is called; `[services.NAME.operations.OPERATION]`.
///
/// Without an entry, operation `Op` is `POST /Op`, and is not idempotent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    #[serde(deserialize_with = "value::method", default = "post")]
    pub(crate) method: http::Method,
    #[serde(deserialize_with = "value::path", default)]
    pub(crate) path: Option<http::uri::PathAndQuery>,
    /// Unless said, the method decides.
    #[serde(default)]
    pub(crate) idempotent: Option<bool>,
    #[serde(deserialize_with = "value::time", default)]
    pub(crate) timeout: Option<Duration>,
}

/// As one would write it down: `GET /orders/current idempotent 500ms`.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            method,
            path,
            idempotent,
            timeout,
        } = self;
        write!(f, "{method}")?;
        if let Some(path) = path {
            write!(f, " {path}")?;
        }
        match idempotent {
            Some(true) => write!(f, " idempotent")?,
            Some(false) => write!(f, " not idempotent")?,
            None => {}
        }
        match timeout {
            Some(timeout) => write!(f, " {}", humantime::format_duration(*timeout)),
            None => Ok(()),
        }
    }
}

fn post() -> http::Method {
    http::Method::POST
}

impl Config {
    /// Reads a configuration from the text of a TOML file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the key and the line of what is wrong, and for a key that does not exist the nearest one
    /// that does.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self =
            toml::from_str(text).map_err(|error| ConfigError::syntax(text, &error))?;
        config.validate().map_err(|error| error.locate(text))?;
        Ok(config)
    }

    /// Reads a configuration from a TOML file.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), and if the file cannot be read.
    pub fn from_file(file: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::read(file.as_ref()).0
    }

    /// The configuration in a file, and the text of the file if it can be read.
    pub(crate) fn read(file: &Path) -> (Result<Self, ConfigError>, Option<String>) {
        match std::fs::read_to_string(file) {
            Ok(text) => {
                let config = Self::parse(&text).map_err(|error| error.in_file(file));
                (config, Some(text))
            }
            Err(error) => (Err(ConfigError::file(file, &error)), None),
        }
    }

    /// What holds between several keys; each key alone was checked when it was read.
    fn validate(&self) -> Result<(), ConfigError> {
        if !self.defaults.operations.is_empty() {
            return Err(ConfigError::at(
                "defaults.operations",
                "an operation belongs to a service: move it below [services.NAME.operations]",
            ));
        }
        self.discovery.validate()?;
        self.validate_tls()?;
        self.server.validate()?;
        let defaults = self.defaults.over(&Policy::default());
        self.defaults
            .validate(&defaults)
            .map_err(|error| error.beneath("defaults"))?;
        for (name, service) in &self.services {
            service
                .validate(&service.over(&defaults))
                .map_err(|error| error.beneath(&format!("services.{name}")))?;
        }
        Ok(())
    }
}

impl ServiceConfig {
    /// Checks what is said here, and the `policy` that comes of it.
    fn validate(&self, policy: &Policy) -> Result<(), ConfigError> {
        // An attempt gets what the call has left anyway, so a default may be longer; who writes both means something.
        if let (Some(timeout), Some(per_try)) = (self.timeout, self.retry.per_try_timeout)
            && per_try > timeout
        {
            return Err(ConfigError::at(
                "retry.per_try_timeout",
                format!("an attempt cannot take longer ({per_try:?}) than its call ({timeout:?})"),
            ));
        }
        policy.validate()
    }

    /// The policy `base`, or that of the profile if one is said here, with what is said here in place of what it says.
    pub(crate) fn over(&self, base: &Policy) -> Policy {
        let mut policy = (self.profile).map_or_else(|| base.clone(), Profile::policy);
        set(&mut policy.timeout, self.timeout);
        set(&mut policy.balance, self.balance);
        set(&mut policy.min_nearby, self.min_nearby);
        set(&mut policy.subset.size, self.subset.size.map(Some));
        set(&mut policy.subset.client, self.subset.client.clone());
        set(&mut policy.hash.header, self.hash.header.clone().map(Some));
        set(&mut policy.hash.seed, self.hash.seed);
        set(&mut policy.hash.capacity, self.hash.capacity);
        set(&mut policy.panic.max_out, self.panic.max_out);
        set(&mut policy.panic.min_healthy, self.panic.min_healthy);
        let (retry, to) = (&self.retry, &mut policy.retry);
        set(&mut to.attempts, retry.attempts);
        set(&mut to.per_try_timeout, retry.per_try_timeout.map(Some));
        set(&mut to.budget, retry.budget);
        set(&mut to.min_per_second, retry.min_per_second);
        set(&mut to.backoff, retry.backoff);
        set(&mut to.max_backoff, retry.max_backoff);
        let (breaker, to) = (&self.breaker, &mut policy.breaker);
        set(&mut to.consecutive_failures, breaker.consecutive_failures);
        set(&mut to.failure_rate, breaker.failure_rate);
        set(&mut to.open_for, breaker.open_for);
        set(&mut to.max_open, breaker.max_open);
        set(&mut to.service, breaker.service);
        let (ejection, to) = (&self.ejection, &mut policy.ejection);
        set(&mut to.enabled, ejection.enabled);
        set(&mut to.failure_rate, ejection.failure_rate);
        set(&mut to.eject_for, ejection.eject_for);
        set(&mut to.max_eject, ejection.max_eject);
        let (health, to) = (&self.health, &mut policy.health);
        set(&mut to.check, health.check);
        set(&mut to.path, health.path.clone().map(Some));
        set(&mut to.interval, health.interval);
        set(&mut to.time_limit, health.time_limit);
        set(&mut to.unhealthy_after, health.unhealthy_after);
        set(&mut to.healthy_after, health.healthy_after);
        set(&mut to.grpc_service, health.grpc_service.clone());
        set(&mut policy.slow_start, self.slow_start);
        set(
            &mut policy.hedge.percentile,
            self.hedge.percentile.map(Some),
        );
        set(&mut policy.hedge.attempts, self.hedge.attempts);
        let (limit, to) = (&self.limit, &mut policy.limit);
        set(&mut to.max_in_flight, limit.max_in_flight);
        set(&mut to.adaptive, limit.adaptive);
        set(&mut to.queue, limit.queue);
        set(&mut to.max_wait, limit.max_wait);
        policy
    }
}

fn set<T: Clone>(to: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *to = said;
    }
}

#[cfg(test)]
mod tests;
