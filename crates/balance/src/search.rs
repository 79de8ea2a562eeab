//! Finding the cheapest of a few that may be called.

use tower_mesh_core::{Gate, Load, Rng, Standing, Vitals, sync::Ordering};

use crate::{
    panic::Alarm,
    pick::{Avoid, Chance, Field},
    strategy::Moment,
};

/// Draws beyond the candidates wanted, for those that are shut or were drawn already. With half of the endpoints shut
/// one pick of 64 finds nothing so, and looks at all of them.
const SPARE_DRAWS: usize = 3;

/// Who begins slowly is held back no longer once so many of them were drawn and nobody else was: so those that do not
/// never get more than twice their share, however many begin at once.
const HELD_BACK: usize = 2;

/// Nor if the best of the others costs so many times as much: they hang, or are swamped by this very client.
const MUCH_DEARER: f32 = 4.0;

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

/// One pick.
#[derive(Clone, Copy)]
pub(crate) struct Search<'a> {
    pub(crate) field: Field<'a>,
    pub(crate) chance: &'a Chance,
    pub(crate) at: Moment,
    /// Whether an endpoint on probation may be tried.
    pub(crate) probe: bool,
    pub(crate) avoid: &'a Avoid,
}

impl<'a> Search<'a> {
    /// The cheapest of `WANTED` random ones.
    #[inline(always)]
    pub(crate) fn at_random<const WANTED: usize>(
        self,
        cost: impl Fn(&Load, f32, &Moment) -> f32 + Copy,
    ) -> Option<usize> {
        let table = self.field.table;
        let mut dice = Dice(self.chance.rng.next_u64());
        let drawn: [usize; WANTED] = table.draw_some(|| dice.throw());
        self.best_of(drawn, || table.draw(dice.throw()), cost)
    }

    /// The one whose turn it is.
    pub(crate) fn in_turn(self) -> Option<usize> {
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
        let settled = seats.iter().all(|seat| seat.vitals.gate().is_settled());
        if !different || !settled || self.avoid.any {
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
        let mut held_back = Best::default();
        let mut on_probation = None;
        let mut alarm = None;
        for nth in 0..WANTED + more {
            let place = drawn.get(nth).copied().unwrap_or_else(&mut draw);
            if seen.contains(&place) {
                continue;
            }
            let seat = self.seat(place);
            match self.look(seat.vitals, &mut alarm) {
                Look::Open(part) => {
                    let cost = seat.cost(part, cost, &self.at);
                    if part >= 1.0 || self.chance.rng.unit() < f64::from(part) {
                        seen[best.found] = place;
                        best.compare(seat, cost);
                    } else if !held_back.is(seat) {
                        held_back.compare(seat, cost);
                    }
                }
                Look::OnProbation if self.probe && nth == 0 => return Some(seat.index),
                Look::OnProbation => on_probation = Some(seat.index),
                Look::Out => {}
            }
            let nobody_else = best.found == 0 && held_back.found == HELD_BACK;
            if best.found == WANTED || nobody_else {
                break;
            }
        }
        match best.or_much_cheaper(held_back).index() {
            None if all || (self.probe && on_probation.is_some()) => on_probation,
            None => self.scan(WANTED, alarm, cost),
            picked => picked,
        }
    }

    /// The cheapest of the first open ones, looking at all in a random order: those that are shut may well be neighbours.
    fn scan(
        self,
        wanted: usize,
        mut alarm: Option<Alarm>,
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
            match self.look(seat.vitals, &mut alarm) {
                Look::Open(part) => {
                    best.compare(seat, seat.cost(part, cost, &self.at));
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

    /// What one look shows; `alarm` is whether there is a panic, once that has been asked.
    fn look(self, vitals: &Vitals, alarm: &mut Option<Alarm>) -> Look {
        if self.avoid.contains(vitals.key()) {
            return Look::Out;
        }
        let now = self.at.now;
        let gate = vitals.gate();
        let standing = match gate.standing(|| now) {
            Standing::Shut(shut) => {
                let Chance { panic, rng, .. } = self.chance;
                let ask = || panic.alarm(self.field, now).for_a_call(rng);
                match alarm.get_or_insert_with(ask).overrides(gate) {
                    true => gate.standing_in_panic(now),
                    false => Standing::Shut(shut),
                }
            }
            standing => standing,
        };
        match standing {
            Standing::Open => Look::Open(self.part(gate)),
            Standing::Limited => Look::OnProbation,
            Standing::Shut(_) => Look::Out,
        }
    }

    /// The part of its weight that counts.
    fn part(self, gate: &Gate) -> f32 {
        if gate.is_settled() {
            return 1.0;
        }
        let slow_start = self.chance.slow_start;
        slow_start.of(gate, self.at.now).unwrap_or(1.0)
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
pub(crate) struct Seat<'a> {
    pub(crate) index: usize,
    pub(crate) relative: f32,
    pub(crate) vitals: &'a Vitals,
}

impl Seat<'_> {
    /// What a call costs here if only this part of the weight counts.
    fn cost(&self, part: f32, cost: impl Fn(&Load, f32, &Moment) -> f32, at: &Moment) -> f32 {
        let load = self.vitals.load();
        cost(load, self.relative, at) * crowding(load, self.relative, part)
    }
}

/// What the calls in flight add to a cost if only this `part` of the weight counts.
pub(crate) fn crowding(load: &Load, relative: f32, part: f32) -> f32 {
    let busy = load.in_flight() as f32 * relative;
    (busy / part + 1.0) / (busy + 1.0)
}

/// What a look at an endpoint shows.
enum Look {
    /// With this part of its weight: all of it, unless it begins slowly.
    Open(f32),
    OnProbation,
    Out,
}

/// The best of the candidates found so far.
pub(crate) struct Best {
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
    pub(crate) fn compare(&mut self, seat: Seat<'_>, cost: f32) {
        if cost < self.cost {
            self.index = seat.index;
            self.cost = cost;
        }
        self.found += 1;
    }

    /// Whether it is this one that is kept.
    fn is(&self, seat: Seat<'_>) -> bool {
        self.index == seat.index
    }

    fn or_much_cheaper(self, other: Self) -> Self {
        // Without any the cost is infinite.
        if self.cost > MUCH_DEARER * other.cost {
            other
        } else {
            self
        }
    }

    #[inline(always)]
    pub(crate) fn index(&self) -> Option<usize> {
        (self.index != usize::MAX).then_some(self.index)
    }
}
