//! A histogram in fixed memory: each power of two is cut into sixteen, so a quantile is at most a sixteenth off.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{HistogramSink, shards::Shards};
use crate::ratio::Ratio;

/// Values below 16 have a bucket each; above, a power of two has 16.
const SUB_BITS: u32 = 4;
const SUB: usize = 1 << SUB_BITS;
/// What is larger counts as the largest: 73 minutes in nanoseconds, 4 TiB.
const MAX_BITS: u32 = 42;
const BUCKETS: usize = (MAX_BITS - SUB_BITS + 1) as usize * SUB;

/// More shards than this cost more memory (5 KiB each) than the rare meeting of two threads in one bucket costs time.
const MAX_SHARDS: usize = 4;

/// The bucket of `value`.
fn bucket(value: u64) -> usize {
    if value < SUB as u64 {
        return value as usize;
    }
    let exponent = value.ilog2();
    if exponent >= MAX_BITS {
        return BUCKETS - 1;
    }
    let sub = (value >> (exponent - SUB_BITS)) as usize & (SUB - 1);
    (exponent - SUB_BITS + 1) as usize * SUB + sub
}

/// The least value of a bucket; of the one after the last, the first that does not count.
fn least(bucket: usize) -> u64 {
    if bucket < SUB {
        return bucket as u64;
    }
    let doublings = bucket / SUB - 1;
    ((SUB + bucket % SUB) as u64) << doublings
}

/// One thread's part of a histogram.
pub(super) struct Part {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Default for Part {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
        }
    }
}

pub(super) type Parts = Shards<Part>;

impl HistogramSink for Parts {
    fn record(&self, value: u64) {
        let part = self.own();
        part.counts[bucket(value)].fetch_add(1, Ordering::Relaxed);
        part.sum.fetch_add(value, Ordering::Relaxed);
    }
}

impl Parts {
    pub(super) fn sized(shards: usize) -> Self {
        Self::new(shards.min(MAX_SHARDS))
    }

    pub(super) fn read(&self) -> Distribution {
        let mut read = Distribution::default();
        for part in self.iter() {
            for (count, counted) in read.counts.iter_mut().zip(&part.counts) {
                *count = count.wrapping_add(counted.load(Ordering::Relaxed));
            }
            read.sum = read.sum.wrapping_add(part.sum.load(Ordering::Relaxed));
        }
        read
    }

    /// Adds what `other` has counted.
    pub(super) fn absorb(&self, other: &Self) {
        let Distribution { counts, sum } = other.read();
        for (own, count) in self.first().counts.iter().zip(&counts) {
            own.fetch_add(*count, Ordering::Relaxed);
        }
        self.first().sum.fetch_add(sum, Ordering::Relaxed);
    }
}

/// How values were distributed when a snapshot was taken.
#[derive(Clone, PartialEq, Eq)]
pub struct Distribution {
    counts: Box<[u64]>,
    sum: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS].into(),
            sum: 0,
        }
    }
}

impl Distribution {
    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of the values.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The mean of the values, if there were any.
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum as f64 / count as f64)
    }

    /// The value that a share `q` of the values does not exceed, at most a sixteenth off; none if there were none.
    pub fn quantile(&self, q: Ratio) -> Option<u64> {
        let count = self.count();
        let rank = ((q.get() * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0;
        for (bucket, n) in self.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            if below + n >= rank {
                // The values of a bucket are taken to lie evenly in it.
                let width = least(bucket + 1) - least(bucket);
                let place = ((rank - below) as f64 - 0.5) / *n as f64;
                return Some(least(bucket) + (width as f64 * place) as u64);
            }
            below += n;
        }
        None
    }

    /// The buckets that hold values: the first value above each, and how many it holds.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, n)| **n > 0)
            .map(|(bucket, n)| (least(bucket + 1), *n))
    }

    /// Adds what `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        for (own, count) in self.counts.iter_mut().zip(&other.counts) {
            *own += count;
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

impl fmt::Debug for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Distribution")
            .field("count", &self.count())
            .field("p50", &self.quantile(Ratio::percent(50)))
            .field("p99", &self.quantile(Ratio::percent(99)))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Distribution {
        let parts = Parts::sized(2);
        for value in values {
            parts.record(value);
        }
        parts.read()
    }

    #[test]
    fn small_values_are_exact_and_huge_ones_count_as_the_largest() {
        let small = of(0..16);
        assert_eq!(small.quantile(Ratio::percent(50)), Some(7));
        assert_eq!(small.quantile(Ratio::ZERO), Some(0));
        assert_eq!(small.quantile(Ratio::ONE), Some(15));
        let huge = of([u64::MAX]);
        assert_eq!(huge.count(), 1);
        assert!(huge.quantile(Ratio::ONE) < Some(1 << MAX_BITS));
    }

    #[test]
    fn nothing_recorded_has_no_quantile_and_no_mean() {
        assert_eq!(of([]).quantile(Ratio::ONE), None);
        assert_eq!(of([]).mean(), None);
    }

    #[test]
    fn the_mean_is_exact() {
        assert_eq!(of([1_000, 2_000, 6_000]).mean(), Some(3_000.0));
    }

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket_and_a_bucket_is_at_most_a_sixteenth_wide(value in 0..1u64 << MAX_BITS) {
            let (from, to) = (least(bucket(value)), least(bucket(value) + 1));
            prop_assert!(from <= value && value < to, "{value} is not in {from}..{to}");
            prop_assert!(to - from <= 1.max(from / 16));
        }

        #[test]
        fn quantiles_are_a_sixteenth_off_at_most(
            mut values in prop::collection::vec(1..1u64 << 40, 1..200),
            percent in 1..=100u8,
        ) {
            let found = of(values.iter().copied()).quantile(Ratio::percent(percent)).unwrap();
            values.sort_unstable();
            let rank = (f64::from(percent) / 100.0 * values.len() as f64).ceil() as usize;
            let exact = values[rank.max(1) - 1];
            prop_assert!(found.abs_diff(exact) <= exact / 16, "{found} for {exact}");
        }
    }
}
