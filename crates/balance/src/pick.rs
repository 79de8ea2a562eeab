//! Choosing an endpoint: what from, what by, and whom not.

use std::sync::Arc;

use tower_mesh_core::{Endpoint, Instant, Rng, sync::AtomicU64};

use crate::{
    hash::Hashing,
    panic::Panic,
    search::Search,
    slow_start::SlowStart,
    strategy::{
        Moment, Strategy, by_in_flight, by_mean_latency, by_peak_latency, by_reported_latency,
    },
    table::Table,
};

/// What a pick chooses from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) endpoints: &'a [Endpoint],
    pub(crate) table: &'a Table,
}

/// What a pick draws from, when it believes no judge, and whom it holds back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chance {
    pub(crate) rng: Rng,
    /// Whose turn it is, for those who take turns.
    pub(crate) turns: Arc<AtomicU64>,
    pub(crate) panic: Panic,
    pub(crate) slow_start: SlowStart,
    pub(crate) hashing: Option<Hashing>,
}

impl Chance {
    /// The same for some of the endpoints, with what is remembered of them `before`.
    pub(crate) fn of_level(&self, before: Option<&Self>) -> Self {
        Self {
            turns: before.map_or_else(Arc::default, |before| Arc::clone(&before.turns)),
            panic: self.panic.of_some(before.map(|before| &before.panic)),
            ..self.clone()
        }
    }
}

/// The endpoints that a call would rather not go to: it was sent there before. And where it would rather go.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Avoid {
    pub(crate) any: bool,
    keys: [u32; Self::MOST],
    tried: Option<fn(u32) -> bool>,
    /// Where it would rather go: to the endpoint that this key leads to. None is zero.
    pub(crate) key: u64,
}

impl Avoid {
    /// How many it can name.
    const MOST: usize = 4;

    /// Avoids those for whose key `tried` holds.
    pub(crate) fn tried(tried: fn(u32) -> bool) -> Self {
        Self {
            any: true,
            keys: [0; Self::MOST],
            tried: Some(tried),
            key: 0,
        }
    }

    /// Avoids the endpoint with this key, too, and answers whether there was room to note it.
    pub(crate) fn add(&mut self, key: u32) -> bool {
        self.any = true;
        // No endpoint's key is zero.
        let free = self.keys.iter_mut().find(|noted| **noted == 0);
        free.map(|free| *free = key).is_some()
    }

    pub(crate) fn contains(&self, key: u32) -> bool {
        self.keys.contains(&key) || self.tried.is_some_and(|tried| tried(key))
    }
}

/// Picks an endpoint that may be called and is not to be avoided, and gives its index; nothing if there is none.
///
/// Takes nothing: whoever admits may find that a place on probation has gone meanwhile. An endpoint on probation is
/// picked only if it is drawn first and `probe` says that this call may be risked, or if nothing else is found: so it is
/// offered its own share of the calls, not that of all whom it is compared with.
///
/// In a panic, who is unhealthy or ejected is as good as open, and who has an open breaker that is due to be probed is on
/// probation: their gates are shut all the same, so whoever admits has to say that there is a panic.
#[inline(never)]
pub(crate) fn pick(
    field: Field<'_>,
    strategy: Strategy,
    chance: &Chance,
    now: Instant,
    probe: bool,
    avoid: &Avoid,
) -> Option<usize> {
    if field.table.len() == 0 {
        return None;
    }
    let search = Search {
        field,
        chance,
        at: Moment::new(now),
        probe,
        avoid,
    };
    match strategy {
        Strategy::BestOfThree => search.at_random::<3>(by_mean_latency),
        Strategy::PeakEwma => search.at_random::<2>(by_peak_latency),
        Strategy::Reported => by_reports(field, chance, now, probe, avoid),
        Strategy::LeastInFlight => search.at_random::<2>(by_in_flight),
        Strategy::RoundRobin => search.in_turn(),
        Strategy::Weighted => search.at_random::<1>(|_, _, _| 0.0),
    }
}

/// Apart, and with nothing but what [`pick`] was given: beside the others it would cost them five instructions.
#[inline(never)]
fn by_reports(
    field: Field<'_>,
    chance: &Chance,
    now: Instant,
    probe: bool,
    avoid: &Avoid,
) -> Option<usize> {
    let search = Search {
        field,
        chance,
        at: Moment::new(now),
        probe,
        avoid,
    };
    search.at_random::<3>(by_reported_latency)
}

#[cfg(all(test, not(mesh_loom)))]
mod tests;
