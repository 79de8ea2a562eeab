//! The numbers as they were at one moment.

use super::{Distribution, Labels};

/// What a [`MemoryRecorder`](super::MemoryRecorder) had counted when it was asked, by name and labels.
///
/// What is counted while it is taken may be in it or not.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(super) counters: Vec<Series<u64>>,
    pub(super) gauges: Vec<Series<i64>>,
    pub(super) histograms: Vec<Series<Distribution>>,
}

/// One value, with its name and labels.
#[derive(Clone, Debug)]
pub struct Series<T> {
    pub(super) name: &'static str,
    pub(super) labels: Key,
    pub(super) value: T,
}

/// The labels of a series, by key.
pub(super) type Key = Box<[(&'static str, Box<str>)]>;

impl<T> Series<T> {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its labels, by key.
    pub fn labels(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.labels.iter().map(|(key, value)| (*key, &**value))
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels()
            .find_map(|(k, value)| (k == key).then_some(value))
    }

    /// What was counted.
    pub fn value(&self) -> &T {
        &self.value
    }

    fn is(&self, name: &str, labels: &Labels<'_>) -> bool {
        self.name == name
            && labels
                .iter()
                .all(|(key, value)| self.label(key) == Some(value))
    }
}

impl Snapshot {
    /// All counters, by name and labels.
    pub fn counters(&self) -> &[Series<u64>] {
        &self.counters
    }

    /// All gauges, by name and labels.
    pub fn gauges(&self) -> &[Series<i64>] {
        &self.gauges
    }

    /// All histograms, by name and labels.
    pub fn histograms(&self) -> &[Series<Distribution>] {
        &self.histograms
    }

    /// The sum of the counters of this name that have these labels, whatever others they have.
    pub fn counter(&self, name: &str, labels: &Labels<'_>) -> u64 {
        matching(&self.counters, name, labels).sum()
    }

    /// The sum of the gauges of this name that have these labels, whatever others they have.
    pub fn gauge(&self, name: &str, labels: &Labels<'_>) -> i64 {
        matching(&self.gauges, name, labels).sum()
    }

    /// The histograms of this name that have these labels, whatever others they have, as one.
    pub fn histogram(&self, name: &str, labels: &Labels<'_>) -> Distribution {
        let mut all = Distribution::default();
        matching(&self.histograms, name, labels).for_each(|one| all.merge(one));
        all
    }
}

fn matching<'a, T>(
    series: &'a [Series<T>],
    name: &'a str,
    labels: &'a Labels<'_>,
) -> impl Iterator<Item = &'a T> {
    series
        .iter()
        .filter(move |series| series.is(name, labels))
        .map(Series::value)
}
