//! What Consul's catalogue says of an instance, and how it becomes an endpoint, and the other way round.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;
use tower_mesh_core::{Endpoint, Health, Weight};

/// Metadata of ours that callers do not see: what the catalogue has no field for.
pub(crate) mod ours {
    /// The endpoint's id; the catalogue's has to be unique among all services of an agent.
    pub(crate) const ID: &str = "mesh-id";
    /// Names the registration: whoever registers again gives another.
    pub(crate) const REGISTRATION: &str = "mesh-registration";
    pub(crate) const PRIORITY: &str = "mesh-priority";
    /// Only zero, which the catalogue does not take for a weight.
    pub(crate) const WEIGHT: &str = "mesh-weight";
    pub(crate) const ZONE: &str = "mesh-zone";
    pub(crate) const ALL: [&str; 5] = [ID, REGISTRATION, PRIORITY, WEIGHT, ZONE];
}

/// One line of an answer of `/v1/health/service/NAME`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Line {
    node: Node,
    service: Service,
    #[serde(default, deserialize_with = "or_default")]
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    address: String,
    #[serde(default, deserialize_with = "or_default")]
    meta: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    address: String,
    port: i64,
    #[serde(default, deserialize_with = "or_default")]
    tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    meta: BTreeMap<String, String>,
    #[serde(default)]
    weights: Option<Weights>,
}

/// As they come: another client may have written any number.
#[derive(Debug, Deserialize, Clone, Copy)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: f64,
    warning: f64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    status: String,
}

/// Consul writes an empty list, or an empty table, as null.
pub(crate) fn or_default<'de, D, T>(de: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(de).map(Option::unwrap_or_default)
}

/// The endpoints of an answer, in an order that does not depend on it; and how many lines could not be used, with one
/// of the reasons.
pub(crate) fn endpoints(lines: Vec<Line>) -> (Vec<Endpoint>, Unusable) {
    let mut unusable = Unusable::default();
    let mut endpoints = Vec::with_capacity(lines.len());
    for line in lines {
        match line.endpoint() {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(why) => {
                unusable.count += 1;
                unusable.example.get_or_insert(why);
            }
        }
    }
    endpoints.sort_by(|a, b| (a.id(), a.address()).cmp(&(b.id(), b.address())));
    (endpoints, unusable)
}

/// Lines of an answer that are no endpoints.
#[derive(Debug, Default)]
pub(crate) struct Unusable {
    pub(crate) count: usize,
    pub(crate) example: Option<String>,
}

impl Line {
    pub(crate) fn registration(&self) -> Option<&str> {
        let meta = &self.service.meta;
        meta.get(ours::REGISTRATION).map(String::as_str)
    }

    pub(crate) fn id(&self) -> &str {
        &self.service.id
    }

    fn endpoint(self) -> Result<Endpoint, String> {
        let Self {
            node,
            service,
            checks,
        } = self;
        let id = service.meta.get(ours::ID).unwrap_or(&service.id);
        // Both come from elsewhere, and may be long.
        let refuse = |what: &str| {
            let id: String = id.chars().take(60).collect();
            Err(format!("{id}: {what}"))
        };
        let host = match service.address.is_empty() {
            true => &node.address,
            false => &service.address,
        };
        let Ok(ip) = host.parse::<IpAddr>() else {
            return refuse("its address is no IP address");
        };
        let port = match u16::try_from(service.port) {
            Ok(port) if port > 0 => port,
            _ => return refuse("it has no port"),
        };
        let health = health(&checks);
        let Some(weight) = weight(&service, health) else {
            return refuse("its weight is none");
        };
        let mut endpoint = Endpoint::new((ip, port).into())
            .with_id(id)
            .with_weight(weight)
            .with_health(health);
        let zones = [
            service.meta.get(ours::ZONE),
            service.meta.get("zone"),
            node.meta.get("zone"),
        ];
        if let Some(zone) = zones.into_iter().flatten().next() {
            endpoint = endpoint.with_zone(zone);
        }
        let priority = service.meta.get(ours::PRIORITY);
        if let Some(priority) = priority.and_then(|text| text.parse().ok()) {
            endpoint = endpoint.with_priority(priority);
        }
        for tag in &service.tags {
            endpoint = endpoint.with_tag(tag);
        }
        let theirs = service.meta.iter();
        let theirs = theirs.filter(|(key, _)| !ours::ALL.contains(&key.as_str()));
        Ok(theirs.fold(endpoint, |e, (key, value)| e.with_metadata(key, value)))
    }
}

/// The worst of all checks, of the service and of its node.
fn health(checks: &[Check]) -> Health {
    let each = checks.iter().map(|check| status(&check.status));
    each.max().unwrap_or_default()
}

/// A check's, as the catalogue puts it.
pub(crate) fn status(status: &str) -> Health {
    match status {
        "passing" => Health::Passing,
        "warning" => Health::Warning,
        // Also "maintenance", and what later versions may invent.
        _ => Health::Critical,
    }
}

fn weight(service: &Service, health: Health) -> Option<Weight> {
    if service.meta.get(ours::WEIGHT).is_some_and(|w| w == "0") {
        return Some(Weight::new(0));
    }
    let Some(weights) = service.weights else {
        return Some(Weight::default());
    };
    let weight = match health {
        Health::Warning => weights.warning,
        Health::Passing | Health::Critical => weights.passing,
    };
    Weight::from_f64(weight).ok()
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn line(service: Value, checks: Value) -> Line {
        let node = json!({ "Node": "n", "Address": "10.0.0.1", "Meta": { "zone": "node-zone" } });
        let line = json!({ "Node": node, "Service": service, "Checks": checks });
        serde_json::from_value(line).expect("a line")
    }

    fn endpoint(service: Value, checks: Value) -> Endpoint {
        line(service, checks).endpoint().expect("an endpoint")
    }

    #[test]
    fn a_line_becomes_an_endpoint_with_all_that_it_says() {
        let service = json!({
            "ID": "orders:7", "Service": "orders", "Address": "10.0.0.7", "Port": 8080,
            "Tags": ["canary"], "Meta": { "version": "2", "mesh-id": "seven", "mesh-priority": "1" },
            "Weights": { "Passing": 3, "Warning": 1 },
        });
        let expected = Endpoint::new(([10, 0, 0, 7], 8080).into())
            .with_id("seven")
            .with_weight(Weight::new(3))
            .with_priority(1)
            .with_zone("node-zone")
            .with_tag("canary")
            .with_metadata("version", "2");
        let found = endpoint(service, json!([{ "Status": "passing" }]));
        assert!(found == expected && found.same_description(&expected));
    }

    #[test]
    fn what_is_missing_or_null_is_the_nodes_or_the_default() {
        let service = json!({ "ID": "a", "Address": "", "Port": 1, "Tags": null, "Meta": null });
        let found = endpoint(service, Value::Null);
        assert_eq!(found.address(), ([10, 0, 0, 1], 1).into());
        assert_eq!((found.weight().get(), found.health()), (1, Health::Passing));
    }

    #[test]
    fn health_is_that_of_the_worst_check_and_a_warning_has_a_weight_of_its_own() {
        let service = json!({ "ID": "a", "Port": 1, "Weights": { "Passing": 5, "Warning": 2 } });
        let of = |statuses: &[&str]| {
            let checks: Vec<_> = statuses.iter().map(|s| json!({ "Status": s })).collect();
            let endpoint = endpoint(service.clone(), checks.into());
            (endpoint.health(), endpoint.weight().get())
        };
        assert_eq!(of(&["passing"]), (Health::Passing, 5));
        assert_eq!(of(&["passing", "warning"]), (Health::Warning, 2));
        assert_eq!(of(&["critical", "warning"]), (Health::Critical, 5));
        assert_eq!(of(&["maintenance"]), (Health::Critical, 5));
    }

    /// Rows 4 to 9 of reference/performance.md (f).
    #[test]
    fn lines_that_are_no_endpoints_are_left_out_and_told() {
        let lines = [
            json!({ "ID": "named", "Address": "db.internal", "Port": 1 }),
            json!({ "ID": "portless", "Port": 0 }),
            json!({ "ID": "huge", "Port": 70_000 }),
            json!({ "ID": "negative", "Port": 1, "Weights": { "Passing": -1, "Warning": 1 } }),
            json!({ "ID": "good", "Port": 1, "Weights": { "Passing": 1e308, "Warning": 1 } }),
        ];
        let lines = lines.map(|service| line(service, json!([])));
        let (endpoints, unusable) = super::endpoints(lines.into());
        assert_eq!(unusable.count, 4);
        assert_eq!(
            unusable.example.unwrap(),
            "named: its address is no IP address"
        );
        assert_eq!(endpoints.len(), 1);
        assert_eq!(endpoints[0].weight(), Weight::new(u16::MAX));
    }

    #[test]
    fn the_order_of_an_answer_does_not_matter() {
        let ids = |order: [&str; 3]| {
            let lines = order.map(|id| line(json!({ "ID": id, "Port": 1 }), json!([])));
            let (endpoints, _) = super::endpoints(lines.into());
            endpoints
                .iter()
                .map(|e| e.id().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(["c", "a", "b"]), ids(["b", "c", "a"]));
    }
}
