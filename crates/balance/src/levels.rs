//! Which endpoints come first, and how much goes to the others when those are not all well.

mod locality;
mod split;

use std::{collections::BTreeMap, sync::Arc};

use tower_mesh_core::{
    Availability, Endpoint, Gate, Instant,
    sync::{AtomicU64, Ordering::Relaxed},
};

use self::locality::distance;
use self::split::{HALVES, split};
use crate::{
    hash::Places,
    panic::recount,
    pick::{Chance, Field},
    table::Table,
};

/// How much more than its equal share a healthy endpoint is trusted with before calls spill over: Envoy's factor. So a
/// level takes all calls as long as 5 of its 7 endpoints are healthy.
pub(crate) const OVERPROVISIONING: f64 = 1.4;

/// The levels of a set whose endpoints are not all of the same one.
#[derive(Debug)]
pub(crate) struct Levels {
    /// The first is used first.
    all: Box<[Level]>,
    /// Until when the shares hold that were counted last, in nanoseconds.
    valid: AtomicU64,
}

/// Endpoints among which load alone decides.
#[derive(Debug)]
pub(crate) struct Level {
    pub(crate) rank: Rank,
    pub(crate) table: Table,
    /// Where keys lead to, if calls go by them.
    pub(crate) places: Option<Places>,
    /// As the others', but for whose turn it is and whether there is a panic: each level panics for itself.
    pub(crate) chance: Chance,
    /// The share of all calls that goes here or to a level before it, of 2^32.
    upto: AtomicU64,
}

/// Where endpoints stand: their own priority, then how far away they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Rank {
    pub(crate) priority: u8,
    pub(crate) distance: u8,
}

/// What of the settings says where an endpoint stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ranking {
    /// Where the caller runs.
    pub(crate) zone: Option<Arc<str>>,
    pub(crate) min_nearby: usize,
}

impl Default for Ranking {
    fn default() -> Self {
        Self {
            zone: None,
            min_nearby: 3,
        }
    }
}

impl Ranking {
    pub(crate) fn of(&self, endpoint: &Endpoint) -> Rank {
        let own = self.zone.as_deref();
        Rank {
            priority: endpoint.priority(),
            distance: own.map_or(0, |own| distance(own, endpoint.zone())),
        }
    }

    /// Into which level endpoints go: those that are too few to be one join the next of the same priority.
    fn merged(&self, counts: &BTreeMap<Rank, usize>) -> BTreeMap<Rank, Rank> {
        let least = self.zone.as_ref().map_or(0, |_| self.min_nearby);
        let mut into = BTreeMap::new();
        let mut waiting: Vec<Rank> = Vec::new();
        let mut count = 0;
        for (nth, (rank, here)) in counts.iter().enumerate() {
            waiting.push(*rank);
            count += here;
            let next = counts.keys().nth(nth + 1);
            if count >= least || next.is_none_or(|next| next.priority != rank.priority) {
                into.extend(waiting.drain(..).map(|from| (from, *rank)));
                count = 0;
            }
        }
        into
    }
}

impl Levels {
    /// The levels of endpoints with these weights, of which only those take calls that are `usable`; none if they are all
    /// of one. What is remembered of `old` ones is kept.
    pub(crate) fn new(
        old: Option<&Self>,
        ranking: &Ranking,
        endpoints: &[Endpoint],
        ranks: &[Rank],
        weights: &[u16],
        usable: impl Fn(usize) -> bool,
        chance: &Chance,
    ) -> Option<Self> {
        let first = ranks.first()?;
        if ranks.iter().all(|rank| rank == first) {
            return None;
        }
        // As in one table of all of them.
        let weightless = (0..ranks.len()).all(|index| !usable(index) || weights[index] == 0);
        let takes_calls = |index: usize| usable(index) && (weightless || weights[index] > 0);
        let mut counts = BTreeMap::new();
        for index in (0..ranks.len()).filter(|index| takes_calls(*index)) {
            *counts.entry(ranks[index]).or_insert(0) += 1;
        }
        let into = ranking.merged(&counts);
        let mut those: Vec<Rank> = into.values().copied().collect();
        those.dedup();
        if those.len() < 2 {
            return None;
        }
        let level = |rank: Rank| {
            let here = |index| takes_calls(index) && into.get(&ranks[index]) == Some(&rank);
            let before = old.and_then(|old| old.all.iter().find(|level| level.rank == rank));
            let table = Table::new(weights, here);
            Level {
                rank,
                places: (chance.hashing).map(|hashing| Places::new(&table, endpoints, hashing)),
                table,
                chance: chance.of_level(before.map(|level| &level.chance)),
                upto: AtomicU64::new(0),
            }
        };
        Some(Self {
            all: those.into_iter().map(level).collect(),
            valid: AtomicU64::new(0),
        })
    }

    /// All of them, the first first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Level> {
        self.all.iter()
    }

    /// The level that takes a call now, as the shares say, by so many random bits.
    pub(crate) fn draw(&self, endpoints: &[Endpoint], random: u64, now: Instant) -> &Level {
        self.count_if_due(endpoints, now);
        let drawn = random >> HALVES;
        let level = self
            .all
            .iter()
            .find(|level| drawn < level.upto.load(Relaxed));
        // Somebody else counts at this moment: any of them will do.
        level.unwrap_or(&self.all[0])
    }

    /// What share of the calls each level takes; those of many endpoints may be a moment old.
    fn count_if_due(&self, endpoints: &[Endpoint], now: Instant) {
        let places = self.all.iter().map(|level| level.table.len()).sum();
        if let Some(valid) = recount(places, now, self.valid.load(Relaxed)) {
            self.valid.store(valid, Relaxed);
            self.count(endpoints);
        }
    }

    /// What share of the calls each level takes, counted now.
    pub(crate) fn count(&self, endpoints: &[Endpoint]) -> Vec<f64> {
        let healthy: Vec<f64> = self
            .all
            .iter()
            .map(|level| level.healthy(endpoints))
            .collect();
        let (shares, is_enough) = split(&healthy, OVERPROVISIONING);
        let mut upto = 0.0;
        for (level, share) in self.all.iter().zip(&shares) {
            upto += share;
            let whole = (1u64 << HALVES) as f64;
            level.upto.store((upto * whole).round() as u64, Relaxed);
            // As long as the healthy ones of all levels are enough, nobody else needs to be believed healthy.
            level.chance.panic.spare(is_enough);
        }
        shares
    }
}

impl Level {
    pub(crate) fn field<'a>(&'a self, endpoints: &'a [Endpoint]) -> Field<'a> {
        let table = &self.table;
        Field { endpoints, table }
    }

    /// Whether health is ignored here, by what was counted last.
    pub(crate) fn is_panicking(&self, endpoints: &[Endpoint]) -> bool {
        self.chance.panic.would_be(self.field(endpoints))
    }

    /// The share of its endpoints that are healthy, but for those that were taken out on purpose.
    fn healthy(&self, endpoints: &[Endpoint]) -> f64 {
        let (mut healthy, mut all) = (0usize, 0usize);
        for place in 0..self.table.len() {
            let (index, _) = self.table.at(place);
            let availability = Gate::availability(endpoints[index].vitals().gate());
            healthy += usize::from(availability == Availability::In);
            all += usize::from(availability != Availability::Withdrawn);
        }
        healthy as f64 / all.max(1) as f64
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests;
