//! Calls with the same key go to the same endpoint, as far as that one can take them.

mod layer;

use tower_mesh_core::{
    Endpoint, Instant, Standing,
    sync::{AtomicU64, Ordering::Relaxed},
};

pub use self::layer::{HashBy, Hashed, KeyOf};
use crate::{
    panic::recount,
    pick::{Avoid, Field},
    table::Table,
};

/// How keys are hashed, and how many calls one endpoint takes for them: see [`HashBy`], which sets both.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hashing {
    pub(crate) seed: u64,
    /// As a multiple of an equal share of the calls in flight.
    pub(crate) capacity: f64,
}

impl Default for Hashing {
    fn default() -> Self {
        Self {
            seed: 0,
            capacity: 1.25,
        }
    }
}

impl Hashing {
    /// As [`HashBy::seed`].
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// As [`HashBy::capacity`].
    #[must_use]
    pub fn capacity(mut self, capacity: f64) -> Self {
        self.capacity = capacity.max(1.0);
        self
    }
}

/// Where keys lead to among the endpoints of a table; made by the updater.
#[derive(Debug)]
pub(crate) struct Places {
    hashing: Hashing,
    /// The places of the table at their points of the ring, sorted. Absent for few endpoints, of which each is asked.
    ring: Option<Box<[(u64, u32)]>>,
    /// Calls in flight as they were counted last, and until when that holds.
    in_flight: AtomicU64,
    valid: AtomicU64,
}

/// So many endpoints are each asked for a score ([rendezvous][1]), which moves no key that need not move and needs no
/// memory; more lie on a ring.
///
/// [1]: https://www.eecs.umich.edu/techreports/cse/96/CSE-TR-316-96.pdf
const ASKED: usize = 64;

/// The points of an endpoint of mean weight on the ring. With 40 its part of the keys is even within a sixth; what is
/// more than it can take goes on to the next.
const POINTS: f32 = 40.0;

const MOST_POINTS: f32 = 4_000.0;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Places {
    pub(crate) fn new(table: &Table, endpoints: &[Endpoint], hashing: Hashing) -> Self {
        Self {
            hashing,
            ring: (table.len() > ASKED).then(|| ring(table, endpoints, hashing.seed)),
            in_flight: AtomicU64::new(0),
            valid: AtomicU64::new(0),
        }
    }

    /// The index of the endpoint that `key` leads to, of those that are open, are not to be avoided and have room.
    pub(crate) fn find(
        &self,
        field: Field<'_>,
        key: u64,
        avoid: &Avoid,
        now: Instant,
    ) -> Option<usize> {
        let key = mix(key ^ self.hashing.seed);
        let share = (self.in_flight(field, now) + 1) as f64 / field.table.len() as f64;
        let share = share * self.hashing.capacity;
        let fits = |place: usize| {
            let (index, relative) = field.table.at(place);
            let vitals = field.endpoints[index].vitals();
            let room = (share / f64::from(relative)).ceil();
            let fits = f64::from(vitals.load().in_flight()) < room
                && !avoid.contains(vitals.key())
                && vitals.gate().standing(|| now) == Standing::Open;
            fits.then_some(index)
        };
        match &self.ring {
            Some(ring) => {
                let first = ring.partition_point(|(point, _)| *point < key);
                let (before, after) = ring.split_at(first);
                let mut places = after.iter().chain(before);
                places.find_map(|(_, place)| fits(*place as usize))
            }
            None => {
                let scored = (0..field.table.len()).filter_map(|place| {
                    let index = fits(place)?;
                    Some((score(field, place, key), index))
                });
                let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
                best.map(|(_, index)| index)
            }
        }
    }

    /// The calls in flight; of many endpoints, as they were a moment ago.
    fn in_flight(&self, field: Field<'_>, now: Instant) -> u64 {
        if let Some(valid) = recount(field.table.len(), now, self.valid.load(Relaxed)) {
            let of = |place| {
                let (index, _) = field.table.at(place);
                u64::from(field.endpoints[index].vitals().load().in_flight())
            };
            self.in_flight
                .store((0..field.table.len()).map(of).sum(), Relaxed);
            self.valid.store(valid, Relaxed);
        }
        self.in_flight.load(Relaxed)
    }
}

/// How well an endpoint suits a key: the greatest score wins, each as often as its weight says.
fn score(field: Field<'_>, place: usize, key: u64) -> f64 {
    let (index, relative) = field.table.at(place);
    let random = mix(key ^ mix(u64::from(field.endpoints[index].vitals().key())));
    // Between 0 and 1, both excluded.
    let unit = ((random >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -1.0 / (unit.ln() * f64::from(relative))
}

fn ring(table: &Table, endpoints: &[Endpoint], seed: u64) -> Box<[(u64, u32)]> {
    let mut ring = Vec::with_capacity(table.len() * POINTS as usize);
    for place in 0..table.len() {
        let (index, relative) = table.at(place);
        let own = mix(seed ^ u64::from(endpoints[index].vitals().key()));
        let points = (POINTS / relative).round().clamp(1.0, MOST_POINTS) as u64;
        let point = |nth: u64| {
            (
                mix(own.wrapping_add(nth.wrapping_mul(GOLDEN))),
                place as u32,
            )
        };
        ring.extend((0..points).map(point));
    }
    ring.sort_unstable();
    ring.into()
}

/// The finalizer of SplitMix64: each bit of the input moves half of the output's.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(all(test, not(mesh_loom)))]
mod tests;
