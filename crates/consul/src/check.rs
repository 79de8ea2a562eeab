//! How Consul finds out whether an instance lives.

use std::{net::SocketAddr, time::Duration};

use serde::Serialize;
use tower_mesh_core::Health;

/// A check that Consul's agent makes by itself, beside the heartbeats of an instance with a
/// [ttl](tower_mesh_core::Instance::with_ttl).
///
/// It is made each 10 s, with a limit of 5 s, unless said otherwise. An instance with checks is critical until they
/// have passed for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    probe: Probe,
    every: Duration,
    limit: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Probe {
    Http(Box<str>),
    Tcp,
    Grpc(Option<Box<str>>),
}

impl Check {
    /// `GET path` at the instance's address: 2xx passes, 429 warns, all else is critical.
    pub fn http(path: &str) -> Self {
        Self::new(Probe::Http(path.into()))
    }

    /// A connection to the instance's address.
    pub fn tcp() -> Self {
        Self::new(Probe::Tcp)
    }

    /// gRPC's standard health service at the instance's address.
    pub fn grpc() -> Self {
        Self::new(Probe::Grpc(None))
    }

    /// The same, asked of one service of the server.
    pub fn grpc_service(service: &str) -> Self {
        Self::new(Probe::Grpc(Some(service.into())))
    }

    fn new(probe: Probe) -> Self {
        Self {
            probe,
            every: Duration::from_secs(10),
            limit: Duration::from_secs(5),
        }
    }

    /// How often it is made; at least 100 ms.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every.max(Duration::from_millis(100));
        self
    }

    /// How long it may take; at least 10 ms.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit.max(Duration::from_millis(10));
        self
    }
}

/// A check as the agent's API wants it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Definition {
    #[serde(rename = "CheckID")]
    id: String,
    name: String,
    #[serde(rename = "HTTP", skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    #[serde(rename = "TCP", skip_serializing_if = "Option::is_none")]
    tcp: Option<String>,
    #[serde(rename = "GRPC", skip_serializing_if = "Option::is_none")]
    grpc: Option<String>,
    #[serde(rename = "TTL", skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deregister_critical_service_after: Option<String>,
}

impl Definition {
    /// The check that heartbeats pass. Consul begins it critical unless it is told otherwise.
    pub(crate) fn ttl(id: String, ttl: Duration, health: Health, after: Option<Duration>) -> Self {
        Self {
            id,
            name: "heartbeat".into(),
            ttl: Some(millis(ttl)),
            status: Some(status(health)),
            deregister_critical_service_after: after.map(millis),
            ..Self::default()
        }
    }

    /// A check that the agent makes at `address`.
    pub(crate) fn probe(
        id: String,
        check: &Check,
        address: SocketAddr,
        after: Option<Duration>,
    ) -> Self {
        let mut this = Self {
            id,
            interval: Some(millis(check.every)),
            timeout: Some(millis(check.limit)),
            deregister_critical_service_after: after.map(millis),
            ..Self::default()
        };
        match &check.probe {
            Probe::Http(path) => {
                let slash = if path.starts_with('/') { "" } else { "/" };
                this.name = format!("GET {path}");
                this.http = Some(format!("http://{address}{slash}{path}"));
            }
            Probe::Tcp => {
                this.name = "connects".into();
                this.tcp = Some(address.to_string());
            }
            Probe::Grpc(service) => {
                this.name = "grpc health".into();
                let service = service.as_ref().map(|name| format!("/{name}"));
                this.grpc = Some(format!("{address}{}", service.unwrap_or_default()));
            }
        }
        this
    }
}

pub(crate) fn status(health: Health) -> &'static str {
    match health {
        Health::Passing => "passing",
        Health::Warning => "warning",
        Health::Critical => "critical",
    }
}

fn millis(duration: Duration) -> String {
    // A part of a millisecond is not nothing.
    format!("{}ms", duration.as_nanos().div_ceil(1_000_000))
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn checks_are_written_as_the_agent_reads_them() {
        let address = ([127, 0, 0, 1], 80).into();
        let write = |check: Check| {
            let after = Some(Duration::from_secs(60));
            serde_json::to_value(Definition::probe("id".into(), &check, address, after)).unwrap()
        };
        let http = write(Check::http("health").every(Duration::from_secs(1)));
        assert_eq!(
            http,
            json!({
                "CheckID": "id", "Name": "GET health", "HTTP": "http://127.0.0.1:80/health",
                "Interval": "1000ms", "Timeout": "5000ms", "DeregisterCriticalServiceAfter": "60000ms",
            })
        );
        assert_eq!(write(Check::tcp())["TCP"], "127.0.0.1:80");
        assert_eq!(write(Check::grpc())["GRPC"], "127.0.0.1:80");
        assert_eq!(
            write(Check::grpc_service("a.B"))["GRPC"],
            "127.0.0.1:80/a.B"
        );
    }

    #[test]
    fn a_heartbeat_begins_as_the_instance_feels_and_its_time_is_not_cut_short() {
        let ttl = Duration::from_micros(1_500);
        let check = Definition::ttl("id".into(), ttl, Health::Passing, None);
        assert_eq!(
            serde_json::to_value(check).unwrap(),
            json!({ "CheckID": "id", "Name": "heartbeat", "TTL": "2ms", "Status": "passing" })
        );
    }
}
