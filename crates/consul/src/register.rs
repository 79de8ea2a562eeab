//! Announces instances to an agent, which announces them to the servers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tower_mesh_core::{
    BoxFuture, Health, Instance, Register, RegisterError, Registered, Registration,
};

use crate::{
    catalog::{Line, ours},
    check::{Check, Definition, status},
    consul::Consul,
    error::ConsulError,
    request::Request,
};

/// How instances are announced.
#[derive(Clone, Debug, Default)]
pub(crate) struct Announcing {
    checks: Vec<Check>,
    forget_after: Option<Duration>,
}

/// How long a change of the catalogue may take to be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
/// How long a registration that was dropped may take to be taken back.
const ABANDON: Duration = Duration::from_secs(5);
/// Consul's least.
const LEAST_FORGET: Duration = Duration::from_secs(60);

impl Consul {
    /// Lets the agent make this check of each instance that is registered, beside others.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.announcing.checks.push(check);
        self
    }

    /// How long an instance may be critical before Consul forgets it; ten times its ttl unless said otherwise, at least
    /// Consul's least of 1 min. Consul looks each 30 s.
    ///
    /// It cleans up after instances that died without a word. Until then they are known as critical.
    #[must_use]
    pub fn forget_after(mut self, time: Duration) -> Self {
        self.announcing.forget_after = Some(time.max(LEAST_FORGET));
        self
    }

    fn forget_time(&self, instance: &Instance) -> Option<Duration> {
        let by_ttl = instance.ttl().map(|ttl| (ttl * 10).max(LEAST_FORGET));
        self.announcing.forget_after.or(by_ttl)
    }
}

impl Register for Consul {
    fn register(&self, instance: Instance) -> BoxFuture<'_, Result<Registration, RegisterError>> {
        Box::pin(async move {
            if instance.ttl().is_some_and(|ttl| ttl.is_zero()) {
                return Err(RegisterError::new(
                    "a ttl of zero: no heartbeat would be in time",
                ));
            }
            let announced = Arc::new(Announced {
                id: catalog_id(&instance),
                nonce: format!("{:016x}", self.rng.next_u64()),
                consul: self.clone(),
                instance: instance.clone(),
            });
            let done = async {
                announced.announce(instance.endpoint().health()).await?;
                announced.until_seen(true).await
            };
            match done.await {
                Ok(()) => Ok(Registration::new(instance, Handle(announced))),
                Err(error) => {
                    let service = instance.service();
                    let message = format!("cannot register an instance of {service}");
                    Err(RegisterError::new(message).caused_by(error))
                }
            }
        })
    }
}

/// Unique among all services of an agent.
fn catalog_id(instance: &Instance) -> String {
    format!("{}:{}", instance.service(), instance.endpoint().id())
}

/// What is kept of an instance that was registered.
struct Announced {
    consul: Consul,
    instance: Instance,
    id: String,
    /// Names this registration: one that came later has another.
    nonce: String,
}

/// Whose an instance is, as its agent knows it.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    Us,
    Another,
    Nobody,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Definitions<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    address: String,
    port: u16,
    tags: Vec<&'a str>,
    meta: BTreeMap<&'a str, String>,
    weights: Weights,
    checks: Vec<Definition>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u16,
    warning: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Known {
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
}

impl Announced {
    fn needs(&self) -> String {
        format!("service:write on {}", self.instance.service())
    }

    async fn announce(&self, health: Health) -> Result<(), ConsulError> {
        let definitions = self.definitions(health)?;
        let request = Request::put(&["agent", "service", "register"], self.needs())
            // What an earlier registration had checked must not fail this one.
            .query("replace-existing-checks", "true")
            .json(&definitions)?;
        let answer = self.consul.call(&request).await?;
        match answer.status {
            200 => Ok(()),
            _ => Err(ConsulError::refused(format!(
                "the agent refused it: {}",
                answer.text()
            ))),
        }
    }

    fn definitions(&self, health: Health) -> Result<Definitions<'_>, ConsulError> {
        let endpoint = self.instance.endpoint();
        let mut meta = BTreeMap::new();
        for (key, value) in endpoint.all_metadata() {
            if ours::ALL.contains(&key) {
                let message = format!("the key {key} of the metadata is the mesh's own");
                return Err(ConsulError::refused(message));
            }
            meta.insert(key, value.to_owned());
        }
        meta.insert(ours::ID, endpoint.id().to_owned());
        meta.insert(ours::REGISTRATION, self.nonce.clone());
        if let Some(zone) = endpoint.zone() {
            meta.insert(ours::ZONE, zone.to_owned());
        }
        if endpoint.priority() != 0 {
            meta.insert(ours::PRIORITY, endpoint.priority().to_string());
        }
        let weight = endpoint.weight().get();
        if weight == 0 {
            meta.insert(ours::WEIGHT, "0".to_owned());
        }
        let weight = weight.max(1);
        Ok(Definitions {
            id: &self.id,
            name: self.instance.service().as_str(),
            address: endpoint.address().ip().to_string(),
            port: endpoint.address().port(),
            tags: endpoint.tags().collect(),
            meta,
            weights: Weights {
                passing: weight,
                warning: weight,
            },
            checks: self.checks(health),
        })
    }

    fn checks(&self, health: Health) -> Vec<Definition> {
        let forget = self.consul.forget_time(&self.instance);
        let heartbeat = self.instance.ttl();
        let heartbeat = heartbeat.map(|ttl| Definition::ttl(self.check_id(), ttl, health, forget));
        let address = self.instance.endpoint().address();
        let probes = self.consul.announcing.checks.iter().enumerate();
        let probes = probes.map(|(n, check)| {
            Definition::probe(format!("{}:{n}", self.check_id()), check, address, forget)
        });
        heartbeat.into_iter().chain(probes).collect()
    }

    /// Another for each registration, so that a heartbeat of an older one moves nothing.
    fn check_id(&self) -> String {
        format!("mesh:{}", self.nonce)
    }

    /// Waits until the servers know of it, or no longer do.
    async fn until_seen(&self, there: bool) -> Result<(), ConsulError> {
        let seen = async {
            let mut index = 0;
            loop {
                let service = self.instance.service().as_str();
                let request = Request::get(
                    &["health", "service", service],
                    format!("service:read on {service}"),
                );
                let answer = self.consul.call(&request.after(index, SEEN_WITHIN)).await?;
                index = answer.index.unwrap_or(0);
                let lines: Vec<Line> = answer.json().await?;
                let mut ours = lines.iter().filter(|line| line.id() == self.id);
                if ours.any(|line| line.registration() == Some(&self.nonce)) == there {
                    return Ok(());
                }
            }
        };
        let late = || {
            let message =
                format!("the agent took it, but the servers have not within {SEEN_WITHIN:?}");
            Err(ConsulError::unavailable(message))
        };
        self.consul
            .clock
            .within(SEEN_WITHIN, seen)
            .await
            .unwrap_or_else(late)
    }

    async fn owner(&self) -> Result<Owner, ConsulError> {
        let service = self.instance.service();
        let request = Request::get(
            &["agent", "service", &self.id],
            format!("service:read on {service}"),
        );
        let answer = self.consul.call(&request).await?;
        if answer.is_missing() {
            return Ok(Owner::Nobody);
        }
        let known: Known = answer.json().await?;
        let nonce = known
            .meta
            .and_then(|mut meta| meta.remove(ours::REGISTRATION));
        Ok(match nonce == Some(self.nonce.clone()) {
            true => Owner::Us,
            false => Owner::Another,
        })
    }

    async fn beat(&self, health: Health) -> Result<(), ConsulError> {
        if self.instance.ttl().is_some() && self.pass(health).await? {
            return Ok(());
        }
        match self.owner().await? {
            Owner::Us if self.instance.ttl().is_none() => Ok(()),
            // An agent that was restarted without its state knows nothing, or not all.
            Owner::Us | Owner::Nobody => {
                tracing::warn!(
                    id = self.id,
                    "the agent has lost an instance, it is registered again"
                );
                self.announce(health).await
            }
            Owner::Another => Err(ConsulError::refused(
                "it was registered anew since; this registration is over",
            )),
        }
    }

    /// Whether the agent knows the check.
    async fn pass(&self, health: Health) -> Result<bool, ConsulError> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Beat {
            status: &'static str,
        }
        let request = Request::put(
            &["agent", "check", "update", &self.check_id()],
            self.needs(),
        )
        .json(&Beat {
            status: status(health),
        })?;
        match self.consul.call_known(&request).await? {
            Some(answer) => Ok(answer.status == 200),
            None => Ok(false),
        }
    }

    async fn withdraw(&self) -> Result<(), ConsulError> {
        if self.owner().await? != Owner::Us {
            return Ok(());
        }
        let request = Request::put(&["agent", "service", "deregister", &self.id], self.needs());
        self.consul.call_known(&request).await.map(drop)
    }
}

struct Handle(Arc<Announced>);

fn failed(what: &str, announced: &Announced, error: ConsulError) -> RegisterError {
    let message = format!("{what} of {} failed", announced.id);
    RegisterError::new(message).caused_by(error)
}

impl Registered for Handle {
    fn heartbeat(&self, health: Health) -> BoxFuture<'_, Result<(), RegisterError>> {
        Box::pin(async move {
            let beaten = self.0.beat(health).await;
            beaten.map_err(|error| failed("the heartbeat", &self.0, error))
        })
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), RegisterError>> {
        Box::pin(async move {
            let left = async {
                self.0.withdraw().await?;
                self.0.until_seen(false).await
            };
            let left = left.await;
            left.map_err(|error| failed("the deregistration", &self.0, error))
        })
    }

    fn abandon(&self) {
        let announced = Arc::clone(&self.0);
        // A drop cannot wait. Outside of a runtime nothing can be done: the time to live does the rest.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let left = announced.consul.clock.within(ABANDON, announced.withdraw());
                if let Some(Err(error)) = left.await {
                    tracing::warn!(id = announced.id, %error, "an instance that was dropped may still be registered");
                }
            });
        }
    }
}
