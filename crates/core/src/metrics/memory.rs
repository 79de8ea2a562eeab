//! A recorder that keeps its numbers in the process.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64},
    },
};

use super::{
    Counter, CounterSink, Gauge, Histogram, Labels, Recorder, Series, Snapshot,
    histogram::Parts,
    shards::{Shards, shards},
    snapshot::Key,
};

/// Keeps all numbers in the process: for status, for tests, and for a scraper that reads [`snapshot`](Self::snapshot).
///
/// Counting neither locks nor allocates, and threads do not contend: each number is spread over several cache lines.
/// A counter takes 128 bytes for each of twice the processors (16 at most), a histogram 5 KiB for each of four at most.
///
/// A name has at most 1,000 series. When they are used up, those to which no handle is left are given up first, what
/// they counted goes to the series whose labels all say `other`; if every one is in use, new ones are that series.
///
/// # Clone
///
/// A clone is the same recorder.
#[derive(Clone)]
pub struct MemoryRecorder(Arc<Numbers>);

struct Numbers {
    shards: usize,
    counters: Families<Shards<AtomicU64>>,
    gauges: Families<Shards<AtomicI64>>,
    histograms: Families<Parts>,
}

/// The series of one name; what is above is `other`.
const MAX_SERIES: usize = 1_000;
const OTHER: &str = "other";

type Family<T> = BTreeMap<Key, Arc<T>>;

/// All series of one kind, by name and labels.
struct Families<T>(Mutex<BTreeMap<&'static str, Family<T>>>);

impl MemoryRecorder {
    /// A recorder that has counted nothing.
    pub fn new() -> Self {
        Self(Arc::new(Numbers {
            shards: shards(),
            counters: Families::default(),
            gauges: Families::default(),
            histograms: Families::default(),
        }))
    }

    /// The numbers as they are now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            counters: self.0.counters.read(Shards::<AtomicU64>::total),
            gauges: self.0.gauges.read(Shards::<AtomicI64>::level),
            histograms: self.0.histograms.read(Parts::read),
        }
    }
}

impl Default for MemoryRecorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder for MemoryRecorder {
    fn counter(&self, name: &'static str, labels: &Labels<'_>) -> Counter {
        let Numbers {
            shards, counters, ..
        } = &*self.0;
        Counter::new(counters.series(name, labels, || Shards::new(*shards)))
    }

    fn gauge(&self, name: &'static str, labels: &Labels<'_>) -> Gauge {
        let Numbers { shards, gauges, .. } = &*self.0;
        Gauge::new(gauges.series(name, labels, || Shards::new(*shards)))
    }

    fn histogram(&self, name: &'static str, labels: &Labels<'_>) -> Histogram {
        let Numbers {
            shards, histograms, ..
        } = &*self.0;
        Histogram::new(histograms.series(name, labels, || Parts::sized(*shards)))
    }
}

/// What is left of a series that is given up.
trait Absorb {
    fn absorb(&self, other: &Self);
}

impl Absorb for Shards<AtomicU64> {
    fn absorb(&self, other: &Self) {
        self.add(other.total());
    }
}

impl Absorb for Shards<AtomicI64> {
    /// A level that nobody reports any more is no part of another.
    fn absorb(&self, _: &Self) {}
}

impl Absorb for Parts {
    fn absorb(&self, other: &Self) {
        Parts::absorb(self, other);
    }
}

impl<T> Default for Families<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Families<T> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Family<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<V>(&self, value: impl Fn(&T) -> V) -> Vec<Series<V>> {
        let mut read = Vec::new();
        for (name, family) in self.lock().iter() {
            read.extend(family.iter().map(|(labels, series)| Series {
                name,
                labels: labels.clone(),
                value: value(series),
            }));
        }
        read
    }
}

impl<T: Absorb> Families<T> {
    fn series(&self, name: &'static str, labels: &Labels<'_>, new: impl Fn() -> T) -> Arc<T> {
        let mut families = self.lock();
        let family = families.entry(name).or_default();
        let mut key = key(labels);
        if family.len() >= MAX_SERIES && !family.contains_key(&key) {
            give_up_unused(family, &new);
            if family.len() >= MAX_SERIES {
                key = other(&key);
            }
        }
        Arc::clone(family.entry(key).or_insert_with(|| Arc::new(new())))
    }
}

fn give_up_unused<T: Absorb>(family: &mut Family<T>, new: impl Fn() -> T) {
    let unused: Vec<Key> = family
        .iter()
        .filter(|(key, series)| Arc::strong_count(series) == 1 && **key != other(key))
        .map(|(key, _)| key.clone())
        .collect();
    for key in unused {
        if let Some(series) = family.remove(&key) {
            let rest = family.entry(other(&key)).or_insert_with(|| Arc::new(new()));
            rest.absorb(&series);
        }
    }
}

fn key(labels: &Labels<'_>) -> Key {
    let mut key: Vec<_> = labels.iter().map(|(k, v)| (*k, Box::from(*v))).collect();
    key.sort_unstable();
    key.into()
}

fn other(key: &Key) -> Key {
    key.iter().map(|(k, _)| (*k, Box::from(OTHER))).collect()
}

impl fmt::Debug for MemoryRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRecorder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ratio::Ratio;

    const ORDERS: &Labels<'static> = &[("service", "orders"), ("zone", "a")];

    #[test]
    fn the_same_name_and_labels_are_the_same_series_in_any_order() {
        let recorder = MemoryRecorder::new();
        recorder.counter("calls", ORDERS).add(2);
        recorder
            .counter("calls", &[("zone", "a"), ("service", "orders")])
            .increment();
        recorder
            .clone()
            .counter("calls", &[("service", "carts")])
            .add(10);
        let snapshot = recorder.snapshot();
        assert_eq!(snapshot.counters().len(), 2);
        assert_eq!(snapshot.counter("calls", ORDERS), 3);
        assert_eq!(snapshot.counter("calls", &[("zone", "a")]), 3);
        assert_eq!(snapshot.counter("calls", &[]), 13);
        assert_eq!(snapshot.counter("call", &[]), 0);
    }

    #[test]
    fn gauges_are_set_or_added_to_and_histograms_tell_quantiles() {
        let recorder = MemoryRecorder::new();
        let (level, running) = (recorder.gauge("level", &[]), recorder.gauge("running", &[]));
        level.set(7);
        level.set(5);
        running.add(3);
        running.add(-1);
        let sizes = recorder.histogram("sizes", ORDERS);
        (1..=100).for_each(|size| sizes.record(size));
        let snapshot = recorder.snapshot();
        assert_eq!(snapshot.gauge("level", &[]), 5);
        assert_eq!(snapshot.gauge("running", &[]), 2);
        let p90 = snapshot
            .histogram("sizes", &[])
            .quantile(Ratio::percent(90))
            .unwrap();
        assert!((86..=94).contains(&p90), "{p90}");
    }

    // Row 24 of reference/performance.md (f).
    #[test]
    fn after_a_thousand_label_sets_new_ones_share_the_series_other() {
        let recorder = MemoryRecorder::new();
        let handles: Vec<_> = (0..3_000)
            .map(|user| {
                let counter = recorder.counter("calls", &[("user", &user.to_string())]);
                counter.increment();
                counter
            })
            .collect();
        let snapshot = recorder.snapshot();
        assert_eq!(snapshot.counters().len(), MAX_SERIES + 1);
        assert_eq!(snapshot.counter("calls", &[("user", OTHER)]), 2_000);
        assert_eq!(snapshot.counter("calls", &[("user", "999")]), 1);
        drop(handles);
    }

    #[test]
    fn series_that_nobody_holds_make_room_and_their_counts_are_kept_as_other() {
        let recorder = MemoryRecorder::new();
        let held = recorder.counter("calls", &[("user", "held")]);
        for user in 0..5_000 {
            let user = user.to_string();
            recorder.counter("calls", &[("user", &user)]).increment();
            recorder.histogram("sizes", &[("user", &user)]).record(8);
        }
        held.add(7);
        let snapshot = recorder.snapshot();
        assert!(snapshot.counters().len() <= MAX_SERIES + 1);
        assert_eq!(snapshot.counter("calls", &[("user", "held")]), 7);
        assert_eq!(snapshot.counter("calls", &[("user", "4999")]), 1);
        assert_eq!(snapshot.counter("calls", &[]), 5_007);
        assert_eq!(snapshot.histogram("sizes", &[]).count(), 5_000);
        assert_eq!(snapshot.histogram("sizes", &[]).sum(), 40_000);
    }
}
