//! Who is drawn, and how often.

use std::array;

/// The endpoints that take calls, and an alias table if they do not take all the same share: a draw costs the same for
/// ten endpoints as for a hundred thousand.
///
/// The updater makes it, so that picking only reads. An endpoint that takes calls has a *place* in it.
#[derive(Debug)]
pub(crate) struct Table {
    len: usize,
    /// Absent if every endpoint takes calls, all the same share.
    columns: Option<Box<[Column]>>,
}

/// Vose's alias method: a place is drawn evenly, then either kept or left to its alias.
#[derive(Clone, Copy, Debug)]
struct Column {
    /// Where the endpoint is in the set.
    index: u32,
    /// The place is kept for random bits below this.
    keep: u32,
    alias: u32,
    /// Mean weight divided by the weight of this place.
    relative: f32,
}

/// Multiples of 2^64 / golden ratio fill an interval more evenly than random numbers do.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Table {
    /// A table over the endpoints with these weights, of which only those take calls that are `usable` and weigh
    /// something; if none of them weighs anything, all of them do.
    pub(crate) fn new(weights: &[u16], usable: impl Fn(usize) -> bool) -> Self {
        let usable_only = || (0..weights.len()).filter(|index| usable(*index));
        let weightless = usable_only().all(|index| weights[index] == 0);
        let places: Vec<(u32, u16)> = usable_only()
            .map(|index| (index as u32, if weightless { 1 } else { weights[index] }))
            .filter(|(_, weight)| *weight > 0)
            .collect();
        let even = places.iter().all(|(_, weight)| *weight == places[0].1);
        Self {
            len: places.len(),
            columns: (!even || places.len() < weights.len()).then(|| columns(&places)),
        }
    }

    /// How many endpoints take calls.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where the endpoint of `place` is in the set, and the mean weight divided by its weight.
    #[inline]
    pub(crate) fn at(&self, place: usize) -> (usize, f32) {
        match &self.columns {
            None => (place, 1.0),
            Some(columns) => (columns[place].index as usize, columns[place].relative),
        }
    }

    /// Whether the endpoint at `index` of the set takes calls.
    pub(crate) fn contains(&self, index: usize) -> bool {
        match &self.columns {
            None => index < self.len,
            Some(columns) => {
                let index = index as u32;
                columns
                    .binary_search_by_key(&index, |column| column.index)
                    .is_ok()
            }
        }
    }

    /// The place that `random` bits stand for: each as often as its weight says.
    #[inline]
    pub(crate) fn draw(&self, random: u64) -> usize {
        // Lemire's multiplication: the upper half is the place, the lower half is random still.
        let wide = u128::from(random) * self.len as u128;
        let place = (wide >> 64) as usize;
        match &self.columns {
            None => place,
            Some(columns) => {
                let column = columns[place];
                let coin = (wide >> 32) as u32;
                if coin < column.keep {
                    place
                } else {
                    column.alias as usize
                }
            }
        }
    }

    /// `N` places drawn one after the other: different ones if shares are even and there are more than so many. If there
    /// are not, all of them, in order, from one that is drawn.
    #[inline]
    pub(crate) fn draw_some<const N: usize>(&self, mut random: impl FnMut() -> u64) -> [usize; N] {
        if self.len <= N {
            let first = self.draw(random());
            return array::from_fn(|nth| (first + nth) % self.len);
        }
        if self.columns.is_some() {
            return array::from_fn(|_| self.draw(random()));
        }
        // Each is drawn of those that are left: the places drawn before are skipped, the lowest first.
        let mut drawn = [usize::MAX; N];
        let mut sorted = [usize::MAX; N];
        for nth in 0..N {
            let left = self.len - nth;
            let mut place = ((u128::from(random()) * left as u128) >> 64) as usize;
            for before in &sorted[..nth] {
                place += usize::from(place >= *before);
            }
            drawn[nth] = place;
            for at in &mut sorted {
                (*at, place) = (place.min(*at), place.max(*at));
            }
        }
        drawn
    }

    /// The place whose turn it is at `count`: each as often as its weight says, and spread evenly over time.
    #[inline]
    pub(crate) fn turn(&self, count: u64) -> usize {
        match &self.columns {
            None => (count % self.len.max(1) as u64) as usize,
            Some(_) => self.draw(count.wrapping_mul(GOLDEN)),
        }
    }
}

/// In whole numbers, so that no rounding ever gives a column to a place that should not have it.
fn columns(places: &[(u32, u16)]) -> Box<[Column]> {
    let len = places.len() as u64;
    let total: u64 = places.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mean = total as f32 / len as f32;
    let mut columns: Box<[Column]> = (0..)
        .zip(places)
        .map(|(place, (index, weight))| Column {
            index: *index,
            keep: u32::MAX,
            alias: place,
            relative: mean / f32::from(*weight),
        })
        .collect();

    // What each place still has to give away; a column holds `total`.
    let mut rest: Vec<u64> = places
        .iter()
        .map(|(_, weight)| u64::from(*weight) * len)
        .collect();
    let (mut under, mut over): (Vec<u32>, Vec<u32>) =
        (0..places.len() as u32).partition(|place| rest[*place as usize] < total);
    while let (Some(small), Some(&large)) = (under.pop(), over.last()) {
        let given = rest[small as usize];
        columns[small as usize].keep = ((u128::from(given) << 32) / u128::from(total)) as u32;
        columns[small as usize].alias = large;
        rest[large as usize] -= total - given;
        if rest[large as usize] < total {
            over.pop();
            under.push(large);
        }
    }
    columns
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(weights: &[u16]) -> Table {
        Table::new(weights, |_| true)
    }

    /// How often each endpoint is drawn when the random bits take every value of a fine grid once.
    fn shares(table: &Table, endpoints: usize) -> Vec<f64> {
        const GRID: u64 = 1 << 16;
        let mut shares = vec![0.0; endpoints];
        for i in 0..GRID {
            let place = table.draw(i * (u64::MAX / GRID) + (1 << 40));
            shares[table.at(place).0] += 1.0 / GRID as f64;
        }
        shares
    }

    #[test]
    fn equal_weights_need_no_columns() {
        let table = table(&[7; 100]);
        assert!(table.columns.is_none());
        assert_eq!(table.len(), 100);
    }

    #[test]
    fn an_endpoint_of_weight_zero_has_no_place_unless_all_have_weight_zero() {
        let some = table(&[0, 1, 0, 3]);
        assert_eq!((some.len(), some.at(0).0, some.at(1).0), (2, 1, 3));
        assert!(!some.contains(0) && some.contains(3));
        let none = table(&[0, 0, 0]);
        assert_eq!((none.len(), none.at(0)), (3, (0, 1.0)));
    }

    #[test]
    fn an_empty_table_has_no_place() {
        assert_eq!(table(&[]).len(), 0);
        assert_eq!(Table::new(&[1, 2], |_| false).len(), 0);
        assert_eq!(table(&[]).turn(3), 0);
    }

    #[test]
    fn several_drawn_at_once_are_different_and_each_as_likely() {
        let rng = tower_mesh_core::Rng::seeded(1);
        for len in 1..=8 {
            let table = table(&vec![1; len]);
            let mut counts = vec![[0; 3]; len];
            for _ in 0..10_000 {
                let drawn: [usize; 3] = table.draw_some(|| rng.next_u64());
                let mut different = drawn.to_vec();
                different.sort_unstable();
                different.dedup();
                assert_eq!(different.len(), len.min(3));
                (0..3).for_each(|nth| counts[drawn[nth]][nth] += 1);
            }
            // Five standard deviations.
            let fair = 10_000.0 / len as f64;
            let near = |count: &i32| (f64::from(*count) - fair).abs() <= 5.0 * fair.sqrt();
            assert!(counts.iter().flatten().all(near), "{counts:?}");
        }
    }

    #[test]
    fn the_turns_of_one_and_three_are_spread_evenly() {
        let table = table(&[1, 3]);
        for start in 0..100 {
            let first = (0..40).filter(|i| table.turn(start + i) == 0).count();
            assert!((8..=12).contains(&first), "{first} of 40");
        }
        let even = Table::new(&[1; 3], |_| true);
        assert_eq!([0, 1, 2, 3].map(|count| even.turn(count)), [0, 1, 2, 0]);
    }

    proptest! {
        #[test]
        fn each_is_drawn_as_its_weight_says(weights in prop::collection::vec(0u16..50, 1..40)) {
            let table = table(&weights);
            let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            for (weight, share) in weights.iter().zip(shares(&table, weights.len())) {
                let fair = match total {
                    0.0 => 1.0 / weights.len() as f64,
                    total => f64::from(*weight) / total,
                };
                prop_assert!((share - fair).abs() < 0.002, "{share} instead of {fair}");
                prop_assert!(*weight > 0 || total == 0.0 || share == 0.0);
            }
        }

        #[test]
        fn huge_and_tiny_weights_neither_overflow_nor_leave_anyone_out(
            weights in prop::collection::vec(prop_oneof![Just(0u16), Just(1), Just(u16::MAX)], 1..2_000),
            random: u64,
        ) {
            let table = table(&weights);
            let (index, _) = table.at(table.draw(random));
            prop_assert!(weights[index] > 0 || weights.iter().all(|w| *w == 0));
            prop_assert!((0..table.len()).all(|place| table.at(place).1.is_normal()));
        }
    }
}
