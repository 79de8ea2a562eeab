//! What a mesh has learned, for the process that comes after it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tower_layer::Identity;
use tower_mesh_breaker::BreakerLayer;
use tower_mesh_core::{Clock, Endpoint, NewLayer, ServiceName};
use tower_mesh_health::SavedEjection;

use crate::{mesh::Mesh, service::State, stack::Layers};

/// What a mesh has learned of the endpoints of its services: how fast they are, which breakers are open, who is
/// ejected, for how long, and how many calls a service could bear that did not keep up.
///
/// A process that restarts would else learn it again at its callers' expense. Take it with [`Mesh::snapshot`], keep it as
/// JSON, and give it to [`MeshBuilder::restore`](crate::MeshBuilder::restore). It knows when it was taken: what was open for
/// less time than has passed is closed, and how fast somebody was three minutes ago says nothing any more (gRPC's weights
/// expire after as long).
///
/// It holds names, addresses and numbers, and nothing of any call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    version: u32,
    /// Milliseconds since 1970.
    taken: u64,
    services: BTreeMap<String, ServiceSnapshot>,
}

/// Nothing was learned.
impl Default for Snapshot {
    fn default() -> Self {
        Self {
            version: VERSION,
            taken: 0,
            services: BTreeMap::new(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceSnapshot {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<NonZeroUsize>,
    endpoints: Vec<EndpointSnapshot>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointSnapshot {
    id: String,
    address: SocketAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    latency_us: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    breaker: Option<Out>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ejected: Option<Out>,
}

/// Out for so much longer, for the so-manieth time in a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Out {
    rest_ms: u64,
    times: u32,
}

/// The version written, and the only one read.
const VERSION: u32 = 1;

/// How long the speed of an endpoint is believed: as the weights of gRPC's weighted round robin.
const SPEED_EXPIRES: Duration = Duration::from_secs(180);

/// How long a limit that was lowered is believed: an adaptive limit forgets after as long.
const LIMIT_EXPIRES: Duration = Duration::from_secs(30);

/// Nothing is out for longer, whatever a snapshot says.
const LONGEST_OUT: Duration = Duration::from_secs(600);

impl Mesh {
    /// What the mesh has learned, to be [restored](crate::MeshBuilder::restore) by the process that comes after this one.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.services.all())
    }
}

fn of_service(state: &State) -> ServiceSnapshot {
    let layers = state.layers();
    let set = state.endpoints().current();
    let ejected: HashMap<_, _> = (layers.ejected().saved().into_iter())
        .map(|ejection| ((ejection.id.clone(), ejection.address), ejection))
        .collect();
    let learned = set.endpoints().iter().map(|endpoint| EndpointSnapshot {
        ejected: ejected
            .get(&(endpoint.id().to_owned(), endpoint.address()))
            .map(|ejection| Out::new(ejection.remaining, ejection.times)),
        ..of_endpoint(&layers, endpoint)
    });
    let limit = layers.limit().snapshot();
    ServiceSnapshot {
        limit: NonZeroUsize::new(limit.limit).filter(|_| limit.limit < limit.max),
        endpoints: learned.filter(EndpointSnapshot::says_something).collect(),
    }
}

fn of_endpoint(layers: &Layers, endpoint: &Endpoint) -> EndpointSnapshot {
    let breaker = layers.endpoint_breaker(endpoint).map(|b| b.snapshot());
    EndpointSnapshot {
        id: endpoint.id().to_owned(),
        address: endpoint.address(),
        latency_us: endpoint.vitals().load().latency_us(),
        breaker: breaker
            .and_then(|breaker| Some(Out::new(breaker.retry_after()?, breaker.openings.into()))),
        ejected: None,
    }
}

impl EndpointSnapshot {
    fn says_something(&self) -> bool {
        self.latency_us.is_some() || self.breaker.is_some() || self.ejected.is_some()
    }
}

#[allow(clippy::disallowed_methods)] // The one clock that two processes share.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

impl Snapshot {
    pub(crate) fn of(services: &[Arc<State>]) -> Self {
        let services = services.iter();
        Self {
            version: VERSION,
            taken: now(),
            services: services
                .map(|state| (state.name().to_string(), of_service(state)))
                .collect(),
        }
    }

    /// Whether it can be restored.
    ///
    /// # Errors
    ///
    /// [`InvalidSnapshot`] if it was written by another version, or holds what none would write.
    pub(crate) fn check(&self) -> Result<(), InvalidSnapshot> {
        if self.version != VERSION {
            return Err(InvalidSnapshot(format!(
                "it is of version {}, and {VERSION} is known",
                self.version
            )));
        }
        for (service, learned) in &self.services {
            ServiceName::new(service).map_err(|error| InvalidSnapshot(error.to_string()))?;
            let nonsense = |e: &&EndpointSnapshot| {
                (e.latency_us).is_some_and(|us| !us.is_finite() || us < 0.0)
            };
            if let Some(endpoint) = learned.endpoints.iter().find(nonsense) {
                let what = format!("the latency of {} is none", endpoint.id);
                return Err(InvalidSnapshot(what));
            }
        }
        Ok(())
    }

    /// What it says of each service, as of now.
    pub(crate) fn recall(self) -> HashMap<String, Recall> {
        // A clock that was set back in between makes nothing older.
        let age = Duration::from_millis(now().saturating_sub(self.taken));
        let services = self.services.into_iter();
        services
            .map(|(name, learned)| (name, Recall::new(learned, age)))
            .collect()
    }
}

/// What is left to be restored of one service. Each endpoint takes what is its own when it first appears.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recall {
    pub(crate) limit: Option<NonZeroUsize>,
    endpoints: Arc<Mutex<HashMap<(String, SocketAddr), EndpointSnapshot>>>,
}

impl Recall {
    fn new(learned: ServiceSnapshot, age: Duration) -> Self {
        let endpoints = learned
            .endpoints
            .into_iter()
            .map(|endpoint| endpoint.aged(age));
        let left = endpoints
            .filter(EndpointSnapshot::says_something)
            .map(|endpoint| ((endpoint.id.clone(), endpoint.address), endpoint))
            .collect();
        Self {
            limit: learned.limit.filter(|_| age < LIMIT_EXPIRES),
            endpoints: Arc::new(Mutex::new(left)),
        }
    }

    /// What stands beneath `breakers`, which have to be there before they can be opened.
    pub(crate) fn layer(&self, breakers: &BreakerLayer, clock: &Clock) -> RecallLayer {
        RecallLayer {
            recall: self.clone(),
            breakers: breakers.clone(),
            clock: clock.clone(),
        }
    }

    /// Who is to be ejected, and for how much longer.
    pub(crate) fn ejections(&self) -> Vec<SavedEjection> {
        let left = self
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let ejected = left.values().filter_map(|endpoint| {
            let out = endpoint.ejected?;
            Some(SavedEjection {
                id: endpoint.id.clone(),
                address: endpoint.address,
                remaining: out.rest(),
                times: out.times,
            })
        });
        ejected.collect()
    }

    fn take(&self, endpoint: &Endpoint) -> Option<EndpointSnapshot> {
        let mut left = self
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if left.is_empty() {
            return None;
        }
        left.remove(&(endpoint.id().to_owned(), endpoint.address()))
    }
}

impl EndpointSnapshot {
    /// What it says so much later.
    fn aged(mut self, age: Duration) -> Self {
        if age >= SPEED_EXPIRES {
            self.latency_us = None;
        }
        self.breaker = self.breaker.and_then(|out| out.aged(age));
        self.ejected = self.ejected.and_then(|out| out.aged(age));
        self
    }
}

impl Out {
    fn new(rest: Duration, times: u32) -> Self {
        Self {
            rest_ms: rest.as_millis() as u64,
            times,
        }
    }

    fn rest(self) -> Duration {
        Duration::from_millis(self.rest_ms)
    }

    fn aged(self, age: Duration) -> Option<Self> {
        let rest = self.rest().min(LONGEST_OUT).checked_sub(age)?;
        Some(Self::new(rest, self.times))
    }
}

/// Gives each new endpoint what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct RecallLayer {
    recall: Recall,
    breakers: BreakerLayer,
    clock: Clock,
}

impl NewLayer<Endpoint> for RecallLayer {
    type Layer = Identity;

    fn layer_for(&self, endpoint: &Endpoint) -> Identity {
        if let Some(learned) = self.recall.take(endpoint) {
            if let Some(latency) = learned.latency_us {
                endpoint.vitals().load().seed(latency, self.clock.now());
            }
            if let (Some(breaker), Some(out)) = (self.breakers.breaker(endpoint), learned.breaker) {
                breaker.reopen(out.rest(), u8::try_from(out.times).unwrap_or(u8::MAX));
            }
        }
        Identity::new()
    }
}

/// A snapshot cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSnapshot(String);

impl fmt::Display for InvalidSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the snapshot cannot be restored: {}", self.0)
    }
}

impl std::error::Error for InvalidSnapshot {}
