//! What Consul knows of the health of services, check by check.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, stream};
use serde::Deserialize;
use tower_mesh_core::{Health, ServiceName};

use crate::{
    catalog::{or_default, ours, status},
    consul::Consul,
    error::{ConsulError, quoted},
    request::Request,
};

/// What Consul's catalogue says of the health of one service.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServiceHealth {
    /// Whose it is.
    pub service: ServiceName,
    /// Its instances, by node and id; none if nobody has registered, or the token may not read it.
    pub instances: Vec<InstanceHealth>,
    /// How old this is at most: for how long the server that answered has heard nothing of a leader. Zero if it leads.
    pub age: Duration,
}

/// What the checks of an instance say, and apart from them those of the node that it runs on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InstanceHealth {
    /// The endpoint's id, as discovery gives it.
    pub id: String,
    /// The name of its node.
    pub node: String,
    /// Checks of this instance alone.
    pub service_checks: Vec<CheckHealth>,
    /// Checks that speak for everything on the node, such as that its agent is there (`serfHealth`).
    pub node_checks: Vec<CheckHealth>,
}

/// What one check says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckHealth {
    /// Its id, unique on its node.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What it came to; critical also while the node or the service is in maintenance.
    pub health: Health,
    /// The beginning of what it printed or answered, at most 200 characters on one line.
    pub output: String,
}

/// So many services are asked for at a time; an agent has to have connections left for those who follow something.
const AT_A_TIME: usize = 8;

impl Consul {
    /// The health of several services at once: a result for each, in their order, so that one which cannot be had takes
    /// no other with it.
    ///
    /// Any server may answer, as for discovery, so it can be had during an election;
    /// [`age`](ServiceHealth::age) says how old it may be. When a check was last made, Consul does not record.
    ///
    /// # Errors
    ///
    /// Each result for itself: if the name is none, access is denied, the answer is too large or none, or has more
    /// instances than [`max_endpoints`](Self::max_endpoints).
    ///
    /// # Cancel safety
    ///
    /// Nothing but questions is lost when the future is dropped.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), tower_mesh_core::BoxError> {
    /// let consul = tower_mesh_consul::Consul::from_env()?;
    /// for health in consul.health(["orders", "stock"]).await {
    ///     let health = health?;
    ///     println!("{}: {:?}", health.service, health.worst());
    ///     for instance in &health.instances {
    ///         let checks = instance.service_checks.iter().chain(&instance.node_checks);
    ///         checks.for_each(|check| println!("  {} {:?} {}", check.name, check.health, check.output));
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn health<S: AsRef<str>>(
        &self,
        services: impl IntoIterator<Item = S>,
    ) -> Vec<Result<ServiceHealth, ConsulError>> {
        let names = services
            .into_iter()
            .map(|name| ServiceName::new(name.as_ref()));
        let names: Vec<_> = names.collect();
        let asked = names.into_iter().map(async |name| match name {
            Ok(name) => self.health_of(name).await,
            Err(error) => Err(ConsulError::refused("it is no service").caused_by(error)),
        });
        stream::iter(asked).buffered(AT_A_TIME).collect().await
    }

    async fn health_of(&self, service: ServiceName) -> Result<ServiceHealth, ConsulError> {
        let needs = format!("service:read on {service} and node:read on its nodes");
        let request = Request::get(&["health", "service", service.as_str()], &*needs).flag("stale");
        let answer = self.call(&request).await?;
        if answer.filtered {
            return Err(ConsulError::filtered(&needs));
        }
        let age = answer.last_contact;
        let lines: Vec<Line> = answer.json().await?;
        if lines.len() > self.max_endpoints {
            return Err(ConsulError::too_many(lines.len(), self.max_endpoints));
        }
        let mut instances: Vec<_> = lines.into_iter().map(InstanceHealth::from).collect();
        instances.sort_unstable_by(|a, b| (&a.node, &a.id).cmp(&(&b.node, &b.id)));
        Ok(ServiceHealth {
            service,
            instances,
            age,
        })
    }
}

impl ServiceHealth {
    /// That of the instance that is worst; none if there is no instance.
    pub fn worst(&self) -> Option<Health> {
        self.instances.iter().map(InstanceHealth::worst).max()
    }
}

impl InstanceHealth {
    /// What the worst of all checks says, as discovery sees it; passing if there is none.
    pub fn worst(&self) -> Health {
        let all = self.service_checks.iter().chain(&self.node_checks);
        all.map(|check| check.health).max().unwrap_or_default()
    }
}

/// One line of an answer of `/v1/health/service/NAME`, of which discovery reads another part.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    node: Node,
    service: Service,
    #[serde(default, deserialize_with = "or_default")]
    checks: Vec<Check>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    node: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default, deserialize_with = "or_default")]
    meta: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(rename = "CheckID")]
    id: String,
    #[serde(default)]
    name: String,
    status: String,
    #[serde(default)]
    output: String,
    /// Empty if it is of the node.
    #[serde(default, rename = "ServiceID")]
    service: String,
}

impl From<Line> for InstanceHealth {
    fn from(line: Line) -> Self {
        let Service { id, mut meta } = line.service;
        let (node, service): (Vec<_>, Vec<_>) = line
            .checks
            .into_iter()
            .partition(|check| check.service.is_empty());
        let all = |checks: Vec<Check>| checks.into_iter().map(CheckHealth::from).collect();
        Self {
            id: meta.remove(ours::ID).unwrap_or(id),
            node: line.node.node,
            service_checks: all(service),
            node_checks: all(node),
        }
    }
}

impl From<Check> for CheckHealth {
    fn from(check: Check) -> Self {
        Self {
            id: quoted(check.id.as_bytes()),
            name: quoted(check.name.as_bytes()),
            health: status(&check.status),
            output: quoted(check.output.as_bytes()),
        }
    }
}
