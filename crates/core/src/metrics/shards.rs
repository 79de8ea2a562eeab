//! Numbers that several threads write without getting in each other's way.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::{CounterSink, GaugeSink};
use crate::sync::{Padded, thread_number};

/// How many shards a number has: twice the processors, so that two busy threads seldom share one.
pub(super) fn shards() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (2 * processors).next_power_of_two().min(16)
}

/// One value for each of `shards` groups of threads, each on a cache line of its own.
pub(super) struct Shards<T>(Box<[Padded<T>]>);

impl<T: Default> Shards<T> {
    /// At least `shards` of them: the next power of two, so that finding one's own takes no division.
    pub(super) fn new(shards: usize) -> Self {
        let shards = shards.next_power_of_two();
        Self((0..shards).map(|_| Padded::default()).collect())
    }
}

impl<T> Shards<T> {
    /// The shard of this thread.
    pub(super) fn own(&self) -> &T {
        &self.0[thread_number() & (self.0.len() - 1)].0
    }

    pub(super) fn first(&self) -> &T {
        &self.0[0].0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|shard| &shard.0)
    }
}

impl CounterSink for Shards<AtomicU64> {
    fn add(&self, n: u64) {
        self.own().fetch_add(n, Ordering::Relaxed);
    }
}

impl Shards<AtomicU64> {
    pub(super) fn total(&self) -> u64 {
        self.iter().fold(0, |sum, shard| {
            sum.wrapping_add(shard.load(Ordering::Relaxed))
        })
    }
}

/// Additions go to the thread's shard, a set value to the first: a gauge knows only one of both.
impl GaugeSink for Shards<AtomicI64> {
    fn set(&self, value: i64) {
        self.first().store(value, Ordering::Relaxed);
    }

    fn add(&self, by: i64) {
        self.own().fetch_add(by, Ordering::Relaxed);
    }
}

impl Shards<AtomicI64> {
    pub(super) fn level(&self) -> i64 {
        self.iter().fold(0, |sum, shard| {
            sum.wrapping_add(shard.load(Ordering::Relaxed))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_write_to_cache_lines_of_their_own() {
        let counter = Shards::<AtomicU64>::new(3);
        let lines: Vec<_> = counter
            .iter()
            .map(|s| std::ptr::from_ref(s) as usize)
            .collect();
        assert_eq!(lines.len(), 4);
        assert!(
            lines.windows(2).all(|two| two[1] - two[0] >= 128),
            "{lines:?}"
        );

        let number = || (thread_number(), std::ptr::from_ref(counter.own()) as usize);
        let (here, own) = number();
        let (there, other) = std::thread::scope(|scope| scope.spawn(number).join().unwrap());
        assert_ne!(here, there);
        assert_eq!((own, other), (lines[here % 4], lines[there % 4]));
        assert_eq!(number(), (here, own), "a thread keeps its shard");
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let (counter, gauge) = (Shards::<AtomicU64>::new(2), Shards::<AtomicI64>::new(2));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        counter.add(3);
                        gauge.add(2);
                        gauge.add(-1);
                    }
                });
            }
        });
        assert_eq!((counter.total(), gauge.level()), (12_000, 4_000));
    }
}
