//! All that a pick reads, made by the updater and never changed.

use std::{fmt, sync::Arc};

use tower_mesh_core::{ByState, Endpoint, EndpointSet, Instant};

use crate::{
    hash::Places,
    levels::{Level, Levels, Rank, Ranking},
    pick::{Chance, Field},
    pool::Settings,
    table::Table,
};

/// The endpoints of one revision and a service for each.
pub(crate) struct Snapshot<S> {
    pub(crate) set: Arc<EndpointSet>,
    /// Whose services are made, if not all are.
    members: Option<Box<[bool]>>,
    /// At the same index as its endpoint; none if it could not be made. Shared between snapshots, so that an update
    /// costs one reference count for each endpoint that stays, whatever a clone of `S` costs.
    services: Box<[Option<Arc<S>>]>,
    /// Kept here since an update would else have to look at every description.
    weights: Box<[u16]>,
    ranks: Box<[Rank]>,
    /// By what the ranks were made.
    ranking: Ranking,
    /// All of them, whatever their level.
    pub(crate) table: Table,
    /// Nothing if there is but one.
    pub(crate) levels: Option<Box<Levels>>,
    /// Where keys lead to, if calls go by them.
    pub(crate) places: Option<Box<Places>>,
    /// There are no levels and no keys: load alone decides.
    pub(crate) is_plain: bool,
}

/// How many peers the latency of a new endpoint is estimated from.
const PEERS: usize = 101;

impl<S> Snapshot<S> {
    /// The snapshot of `set`. Endpoints that `old` had keep their service; for the others, and for those whose service
    /// could not be made before, `make` makes one.
    pub(crate) fn new(
        old: Option<&Self>,
        set: Arc<EndpointSet>,
        settings: &Settings,
        mut make: impl FnMut(&Endpoint) -> Option<S>,
    ) -> Self {
        let endpoints = set.endpoints();
        let kept = Kept::new(old.map_or(&[], |old| old.set.endpoints()), endpoints);
        let mut services = Vec::with_capacity(endpoints.len());
        let mut weights = Vec::with_capacity(endpoints.len());
        let mut ranks = Vec::with_capacity(endpoints.len());
        let ranking = &settings.ranking;
        let ranked_alike = old.is_some_and(|old| old.ranking == *ranking);
        let mut fresh = Vec::new();
        for (index, endpoint) in endpoints.iter().enumerate() {
            let before = old.zip(kept.before(index, endpoint));
            let service = before.and_then(|(old, at)| old.services[at].clone());
            let described =
                before.filter(|(old, at)| old.set.endpoints()[*at].same_description(endpoint));
            weights.push(match described {
                Some((old, at)) => old.weights[at],
                None => endpoint.weight().get(),
            });
            ranks.push(match described.filter(|_| ranked_alike) {
                Some((old, at)) => old.ranks[at],
                None => ranking.of(endpoint),
            });
            services.push(service);
            if before.is_none() {
                fresh.push(endpoint);
            }
        }
        let subset = settings.subset;
        let members = subset.map(|subset| subset.members(endpoints, &ranks, &weights));
        for (index, service) in services.iter_mut().enumerate() {
            if members.as_ref().is_some_and(|members| !members[index]) {
                *service = None;
            } else if service.is_none() {
                *service = make(&endpoints[index]).map(Arc::new);
            }
        }
        welcome(&fresh, endpoints, settings.clock.now());
        let made = |index: usize| services[index].is_some();
        let before = old.and_then(|old| old.levels.as_deref());
        let chance = &settings.chance;
        let levels = Levels::new(before, ranking, endpoints, &ranks, &weights, made, chance);
        let table = Table::new(&weights, made);
        let hashing = chance.hashing.filter(|_| levels.is_none());
        let places = hashing.map(|hashing| Places::new(&table, endpoints, hashing));
        Self {
            is_plain: levels.is_none() && places.is_none(),
            table,
            levels: levels.map(Box::new),
            places: places.map(Box::new),
            services: services.into(),
            weights: weights.into(),
            ranks: ranks.into(),
            ranking: ranking.clone(),
            members,
            set,
        }
    }

    /// What a pick chooses from.
    pub(crate) fn field(&self) -> Field<'_> {
        Field {
            endpoints: self.set.endpoints(),
            table: &self.table,
        }
    }

    /// The fields of all levels, the first first, and what belongs to each; `chance` belongs to the only one.
    pub(crate) fn fields<'a>(
        &'a self,
        chance: &'a Chance,
    ) -> impl Iterator<Item = (Field<'a>, &'a Chance)> {
        let endpoints = self.set.endpoints();
        let levels = self.levels.iter().flat_map(|levels| levels.iter());
        let only = self.levels.is_none().then(|| (self.field(), chance));
        only.into_iter()
            .chain(levels.map(move |level: &Level| (level.field(endpoints), &level.chance)))
    }

    /// Whether the endpoint at `index` is not left to other clients.
    pub(crate) fn is_member(&self, index: usize) -> bool {
        self.members.as_ref().is_none_or(|members| members[index])
    }

    /// The service of the endpoint at `index`.
    pub(crate) fn service(&self, index: usize) -> Option<&S> {
        self.services[index].as_deref()
    }
}

impl<S> fmt::Debug for Snapshot<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("revision", &self.set.revision())
            .field("endpoints", &self.services.len())
            .field("taking_calls", &self.table.len())
            .finish_non_exhaustive()
    }
}

/// Where the endpoints of a new set were in the old one.
///
/// Most updates change a few of many: what is the same at both ends is found by comparing pointers, and only what lies
/// between is looked up. An endpoint that stays has [kept its state](Endpoint::keeping), so that is what it is known by.
struct Kept {
    head: usize,
    /// From this index on, it is the same as in the old set, moved by `shift`.
    tail: usize,
    shift: isize,
    between: ByState,
}

impl Kept {
    fn new(old: &[Endpoint], new: &[Endpoint]) -> Self {
        let same = |(a, b): &(&Endpoint, &Endpoint)| Arc::ptr_eq(a.vitals(), b.vitals());
        let head = old.iter().zip(new).take_while(same).count();
        let ends = old[head..].iter().rev().zip(new[head..].iter().rev());
        let tail = ends.take_while(same).count();
        Self {
            head,
            tail: new.len() - tail,
            shift: old.len() as isize - new.len() as isize,
            between: ByState::new(&old[head..old.len() - tail]),
        }
    }

    /// Where `endpoint`, now at `index`, was before.
    fn before(&self, index: usize, endpoint: &Endpoint) -> Option<usize> {
        match index {
            _ if index < self.head => Some(index),
            _ if index >= self.tail => index.checked_add_signed(self.shift),
            _ => Some(self.head + self.between.find(endpoint)?),
        }
    }
}

/// Gives those that are new among `endpoints` a latency to start from, and lets them begin slowly, unless there are not
/// as many others to compare them with.
fn welcome(fresh: &[&Endpoint], endpoints: &[Endpoint], now: Instant) {
    if fresh.is_empty() {
        return;
    }
    let few = fresh.len() <= endpoints.len() - fresh.len();
    let median = median_latency(endpoints);
    for vitals in fresh.iter().map(|endpoint| endpoint.vitals()) {
        if let Some(latency) = median {
            vitals.load().seed(latency, now);
        }
        // Who has taken calls is new to this balancer only.
        if few && vitals.load().attempts() == 0 {
            vitals.gate().begin_slowly(now);
        }
    }
}

/// The median of what `endpoints` are known to take, of a sample if they are many.
fn median_latency(endpoints: &[Endpoint]) -> Option<f32> {
    let step = endpoints.len() / PEERS + 1;
    let mut known: Vec<f32> = endpoints
        .iter()
        .step_by(step)
        .filter_map(|endpoint| endpoint.vitals().load().latency_us())
        .collect();
    known.sort_unstable_by(f32::total_cmp);
    known.get(known.len() / 2).copied()
}
