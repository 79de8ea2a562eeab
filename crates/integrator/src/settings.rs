//! What may change while a mesh runs: the policies of its services, and their operations.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use serde::Serialize;
use tower_mesh_core::ServiceName;

use crate::{
    config::{Config, ConfigError, Operation},
    policy::Policy,
};

/// The policies and operations in force, of one revision of the configuration.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) revision: u64,
    defaults: Policy,
    policies: HashMap<ServiceName, Policy>,
    operations: HashMap<ServiceName, BTreeMap<String, Operation>>,
}

/// What was said in code. Its defaults lie beneath those of any configuration, its policies go before them.
#[derive(Debug, Default)]
pub(crate) struct Coded {
    pub(crate) defaults: Policy,
    pub(crate) policies: HashMap<ServiceName, Policy>,
}

impl Coded {
    /// What is in force with `config`.
    ///
    /// # Errors
    ///
    /// If a policy that comes of it is invalid.
    pub(crate) fn with(&self, config: &Config, revision: u64) -> Result<Settings, ConfigError> {
        let defaults = config.defaults.over(&self.defaults);
        let configured = config.services.iter();
        let mut policies: HashMap<_, _> = configured
            .clone()
            .map(|(name, service)| (name.clone(), service.over(&defaults)))
            .collect();
        policies.extend(self.policies.clone());
        let all = policies
            .iter()
            .map(|(name, policy)| (format!("services.{name}"), policy));
        for (section, policy) in all.chain([("defaults".to_owned(), &defaults)]) {
            policy.validate().map_err(|error| error.beneath(&section))?;
        }
        Ok(Settings {
            revision,
            defaults,
            policies,
            operations: configured
                .map(|(name, service)| (name.clone(), service.operations.clone()))
                .collect(),
        })
    }
}

impl Settings {
    /// The policy of `service`.
    pub(crate) fn policy(&self, service: &ServiceName) -> &Policy {
        self.policies.get(service).unwrap_or(&self.defaults)
    }

    pub(crate) fn defaults(&self) -> &Policy {
        &self.defaults
    }

    /// How an operation of a service is called.
    pub(crate) fn operation(&self, service: &ServiceName, operation: &str) -> Option<&Operation> {
        self.operations.get(service)?.get(operation)
    }

    /// What is other in `new`.
    pub(crate) fn changes_to(&self, new: &Self) -> Changes {
        let mut changes = Vec::new();
        changed(&mut changes, "defaults", &self.defaults, &new.defaults);
        let named = self.policies.keys().chain(new.policies.keys());
        for name in named.collect::<BTreeSet<_>>() {
            let section = format!("services.{name}");
            changed(&mut changes, &section, self.policy(name), new.policy(name));
        }
        let named = self.operations.keys().chain(new.operations.keys());
        for name in named.collect::<BTreeSet<_>>() {
            self.operations_changed(&mut changes, name, new);
        }
        Changes {
            revision: new.revision,
            changes,
        }
    }

    fn operations_changed(&self, changes: &mut Vec<Change>, service: &ServiceName, new: &Self) {
        let of = |settings: &Self| settings.operations.get(service).cloned();
        let (old, new) = (of(self).unwrap_or_default(), of(new).unwrap_or_default());
        for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
            let text = |operations: &BTreeMap<String, Operation>| {
                (operations.get(name)).map_or_else(|| "POST".to_owned(), ToString::to_string)
            };
            let key = format!("services.{service}.operations.{name}");
            note(changes, key, text(&old), text(&new));
        }
    }
}

fn changed(changes: &mut Vec<Change>, section: &str, old: &Policy, new: &Policy) {
    let settings = old.settings().into_iter().zip(new.settings());
    for ((key, from), (_, to)) in settings {
        note(changes, format!("{section}.{key}"), from, to);
    }
}

fn note(changes: &mut Vec<Change>, key: String, from: String, to: String) {
    if from != to {
        changes.push(Change { key, from, to });
    }
}

/// What another configuration would change, or has changed. It prints one line for each setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Changes {
    /// The revision that it is, or would be.
    pub revision: u64,
    /// Each setting that is another; none if nothing is.
    pub changes: Vec<Change>,
}

/// A setting that is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// Its key in a configuration file.
    pub key: String,
    /// What it was.
    pub from: String,
    /// What it is, or would be.
    pub to: String,
}

impl Changes {
    /// Whether nothing is another.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "nothing changes");
        }
        self.changes.iter().try_for_each(|change| change.fmt(f))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} -> {}", self.key, self.from, self.to)
    }
}
