//! Choosing an endpoint: draw a few, look at their gates, compare what they cost.

use std::sync::Arc;

use tower_mesh_core::{
    Endpoint, Instant, Load, Rng, Standing, Vitals,
    sync::{AtomicU64, Ordering},
};

use crate::{
    strategy::{Moment, Strategy, by_in_flight, by_mean_latency, by_peak_latency},
    table::Table,
};

/// What a pick chooses from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) endpoints: &'a [Endpoint],
    pub(crate) table: &'a Table,
}

/// What a pick draws from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chance {
    pub(crate) rng: Rng,
    /// Whose turn it is, for those who take turns.
    pub(crate) turns: Arc<AtomicU64>,
}

/// Draws beyond the candidates wanted, for those that are shut or were drawn already. With half of the endpoints shut
/// one pick of 64 finds nothing so, and looks at all of them.
const SPARE_DRAWS: usize = 3;

/// The endpoints that a call would rather not go to: it was sent there before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Avoid {
    any: bool,
    keys: [u32; Self::MOST],
    tried: Option<fn(u32) -> bool>,
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
        }
    }

    /// Avoids the endpoint with this key, too, and answers whether there was room to note it.
    pub(crate) fn add(&mut self, key: u32) -> bool {
        self.any = true;
        // No endpoint's key is zero.
        let free = self.keys.iter_mut().find(|noted| **noted == 0);
        free.map(|free| *free = key).is_some()
    }

    fn contains(&self, key: u32) -> bool {
        self.keys.contains(&key) || self.tried.is_some_and(|tried| tried(key))
    }
}

/// Picks an endpoint that may be called and is not to be avoided, and gives its index; nothing if there is none.
///
/// Takes nothing: whoever admits may find that a place on probation has gone meanwhile. An endpoint on probation is
/// picked only if it is drawn first and `probe` says that this call may be risked, or if nothing else is found: so it is
/// offered its own share of the calls, not that of all whom it is compared with.
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
        Strategy::LeastInFlight => search.at_random::<2>(by_in_flight),
        Strategy::RoundRobin => search.in_turn(),
        Strategy::Weighted => search.at_random::<1>(|_, _, _| 0.0),
    }
}

/// One random number becomes as many as a pick needs: the steps of a linear congruential generator, whose upper bits,
/// the ones that count here, are as good as another draw and cost a tenth of it.
struct Dice(u64);

impl Dice {
    #[inline(always)]
    fn throw(&mut self) -> u64 {
        // Multiplier by Steele and Vigna, "Computationally easy, spectrally good multipliers".
        self.0 = self.0.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
        self.0
    }
}

#[derive(Clone, Copy)]
struct Search<'a> {
    field: Field<'a>,
    chance: &'a Chance,
    at: Moment,
    probe: bool,
    avoid: &'a Avoid,
}

impl<'a> Search<'a> {
    #[inline(always)]
    fn at_random<const WANTED: usize>(
        self,
        cost: impl Fn(&Load, f32, &Moment) -> f32 + Copy,
    ) -> Option<usize> {
        let table = self.field.table;
        let mut dice = Dice(self.chance.rng.next_u64());
        let drawn: [usize; WANTED] = table.draw_some(|| dice.throw());
        self.best_of(drawn, || table.draw(dice.throw()), cost)
    }

    fn in_turn(self) -> Option<usize> {
        let turns = &self.chance.turns;
        let turn = || self.field.table.turn(turns.fetch_add(1, Ordering::Relaxed));
        self.best_of([turn()], turn, |_, _, _| 0.0)
    }

    /// The cheapest of the first `WANTED` open ones that are drawn, or of all if there are no more.
    #[inline(always)]
    fn best_of<const WANTED: usize>(
        self,
        drawn: [usize; WANTED],
        draw: impl FnMut() -> usize,
        cost: impl Fn(&Load, f32, &Moment) -> f32 + Copy,
    ) -> Option<usize> {
        let seats = drawn.map(|place| self.seat(place));
        let different = (1..WANTED).all(|nth| !drawn[..nth].contains(&drawn[nth]));
        let open = seats.iter().all(|seat| seat.vitals.gate().is_open());
        if !different || !open || self.avoid.any {
            return self.look_further(drawn, draw, cost);
        }
        let mut best = Best::default();
        for seat in seats {
            best.compare(seat, cost(seat.vitals.load(), seat.relative, &self.at));
        }
        best.index()
    }

    /// Takes what was drawn one by one, and then more, until enough are found that may be called.
    #[cold]
    #[inline(never)]
    fn look_further<const WANTED: usize>(
        self,
        drawn: [usize; WANTED],
        mut draw: impl FnMut() -> usize,
        cost: impl Fn(&Load, f32, &Moment) -> f32 + Copy,
    ) -> Option<usize> {
        let all = self.field.table.len() <= WANTED;
        let more = if all { 0 } else { SPARE_DRAWS };
        let mut seen = [usize::MAX; WANTED];
        let mut best = Best::default();
        let mut on_probation = None;
        for nth in 0..WANTED + more {
            let place = drawn.get(nth).copied().unwrap_or_else(&mut draw);
            if seen.contains(&place) {
                continue;
            }
            let seat = self.seat(place);
            match self.look(seat.vitals) {
                Look::Open => {
                    seen[best.found] = place;
                    best.compare(seat, cost(seat.vitals.load(), seat.relative, &self.at));
                }
                Look::OnProbation if self.probe && nth == 0 => return Some(seat.index),
                Look::OnProbation => on_probation = Some(seat.index),
                Look::Out => {}
            }
            if best.found == WANTED {
                break;
            }
        }
        match best.index() {
            None if all || (self.probe && on_probation.is_some()) => on_probation,
            None => self.scan(WANTED, cost),
            picked => picked,
        }
    }

    /// The cheapest of the first open ones, looking at all in a random order: those that are shut may well be neighbours.
    fn scan(
        self,
        wanted: usize,
        cost: impl Fn(&Load, f32, &Moment) -> f32 + Copy,
    ) -> Option<usize> {
        let places = self.field.table.len();
        let mut place = self.chance.rng.below(places);
        let stride = stride(&self.chance.rng, places);
        let mut best = Best::default();
        let mut on_probation = None;
        for _ in 0..places {
            let seat = self.seat(place);
            place = (place + stride) % places;
            match self.look(seat.vitals) {
                Look::Open => {
                    best.compare(seat, cost(seat.vitals.load(), seat.relative, &self.at));
                }
                Look::OnProbation => on_probation = Some(seat.index),
                Look::Out => {}
            }
            if best.found == wanted {
                break;
            }
        }
        best.index().or(on_probation)
    }

    #[inline(always)]
    fn seat(self, place: usize) -> Seat<'a> {
        let (index, relative) = self.field.table.at(place);
        Seat {
            index,
            relative,
            vitals: self.field.endpoints[index].vitals(),
        }
    }

    fn look(self, vitals: &Vitals) -> Look {
        if self.avoid.contains(vitals.key()) {
            return Look::Out;
        }
        match vitals.gate().standing(|| self.at.now) {
            Standing::Open => Look::Open,
            Standing::Limited => Look::OnProbation,
            Standing::Shut(_) => Look::Out,
        }
    }
}

/// A random step that leads from any place to all of them: one that has no divisor in common with their number.
fn stride(rng: &Rng, places: usize) -> usize {
    fn common_divisor(a: usize, b: usize) -> usize {
        if b == 0 { a } else { common_divisor(b, a % b) }
    }

    let mut steps = (0..32).map(|_| 1 + rng.below(places));
    steps
        .find(|step| common_divisor(*step, places) == 1)
        .unwrap_or(1)
}

/// Who sits at a place.
#[derive(Clone, Copy)]
struct Seat<'a> {
    index: usize,
    relative: f32,
    vitals: &'a Vitals,
}

/// What a look at an endpoint shows.
enum Look {
    Open,
    OnProbation,
    Out,
}

/// The best of the candidates found so far.
struct Best {
    found: usize,
    index: usize,
    cost: f32,
}

impl Default for Best {
    fn default() -> Self {
        Self {
            found: 0,
            index: usize::MAX,
            cost: f32::INFINITY,
        }
    }
}

impl Best {
    /// Keeps the cheaper one; of equals the first, so that idle endpoints are picked as their weights say. What costs
    /// infinitely much, or cannot be compared (NaN), is as good as shut.
    #[inline(always)]
    fn compare(&mut self, seat: Seat<'_>, cost: f32) {
        if cost < self.cost {
            self.index = seat.index;
            self.cost = cost;
        }
        self.found += 1;
    }

    #[inline(always)]
    fn index(&self) -> Option<usize> {
        (self.index != usize::MAX).then_some(self.index)
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests;
