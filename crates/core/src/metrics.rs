//! Counting what happens, through handles that are resolved once.
//!
//! A layer asks its [`Recorder`] for handles when it makes a service, and writes to them on the path of a call. A handle
//! is a pointer or nothing at all: without a recorder a count is one branch, and no layer needs a feature or an `if` for
//! that. [`MemoryRecorder`] keeps the numbers in the process; a bridge to another system implements [`Recorder`] and the
//! three sinks.
//!
//! Names are constants and end in their unit where they have one; a histogram of durations ends in `_nanoseconds`.
//! Labels come from closed sets and from configured names, never from a request.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use tower_mesh_core::metrics::{MemoryRecorder, Recorder};
//!
//! let recorder = MemoryRecorder::new();
//! let labels = [("service", "orders")];
//! let calls = recorder.counter("mesh_calls", &labels);
//! let latency = recorder.histogram("mesh_call_nanoseconds", &labels);
//!
//! calls.increment();
//! latency.record_duration(Duration::from_millis(20));
//!
//! assert_eq!(recorder.snapshot().counter("mesh_calls", &labels), 1);
//! ```

mod histogram;
mod memory;
mod shards;
mod snapshot;

use std::{fmt, sync::Arc, time::Duration};

pub use self::{
    histogram::Distribution, memory::MemoryRecorder, snapshot::Series, snapshot::Snapshot,
};

/// What tells the series of one name apart: the key is a constant, the value is copied.
pub type Labels<'a> = [(&'static str, &'a str)];

/// Makes the handles that metrics are written to.
///
/// It is asked when a service or a layer is made, never on the path of a call, so it may lock and allocate; what it
/// hands out may not. The same name and labels give the same series.
pub trait Recorder: fmt::Debug + Send + Sync + 'static {
    /// A number that only grows.
    fn counter(&self, name: &'static str, labels: &Labels<'_>) -> Counter;

    /// A number that goes up and down.
    fn gauge(&self, name: &'static str, labels: &Labels<'_>) -> Gauge;

    /// How values are distributed.
    fn histogram(&self, name: &'static str, labels: &Labels<'_>) -> Histogram;
}

impl<R: Recorder + ?Sized> Recorder for Arc<R> {
    fn counter(&self, name: &'static str, labels: &Labels<'_>) -> Counter {
        (**self).counter(name, labels)
    }

    fn gauge(&self, name: &'static str, labels: &Labels<'_>) -> Gauge {
        (**self).gauge(name, labels)
    }

    fn histogram(&self, name: &'static str, labels: &Labels<'_>) -> Histogram {
        (**self).histogram(name, labels)
    }
}

/// Records nothing: the default wherever a recorder can be set.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct NoRecorder;

impl Recorder for NoRecorder {
    fn counter(&self, _: &'static str, _: &Labels<'_>) -> Counter {
        Counter::noop()
    }

    fn gauge(&self, _: &'static str, _: &Labels<'_>) -> Gauge {
        Gauge::noop()
    }

    fn histogram(&self, _: &'static str, _: &Labels<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// Where a [`Counter`] counts. It is called on the path of calls: it must not block, allocate or panic.
pub trait CounterSink: Send + Sync {
    /// Adds `n`.
    fn add(&self, n: u64);
}

/// Where a [`Gauge`] writes. It is called on the path of calls: it must not block, allocate or panic.
pub trait GaugeSink: Send + Sync {
    /// The number is `value` now.
    fn set(&self, value: i64);

    /// The number is `by` more now, or less.
    fn add(&self, by: i64);
}

/// Where a [`Histogram`] records. It is called on the path of calls: it must not block, allocate or panic.
pub trait HistogramSink: Send + Sync {
    /// Adds one value.
    fn record(&self, value: u64);
}

/// A number that only grows; by default it goes nowhere.
#[derive(Clone, Default)]
pub struct Counter(Option<Arc<dyn CounterSink>>);

impl Counter {
    /// Counts in `sink`.
    pub fn new(sink: Arc<dyn CounterSink>) -> Self {
        Self(Some(sink))
    }

    /// Counts nowhere.
    pub const fn noop() -> Self {
        Self(None)
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        if let Some(sink) = &self.0 {
            sink.add(n);
        }
    }
}

/// A number that goes up and down; by default it goes nowhere.
///
/// A gauge is either set or added to, never both: a set value and concurrent additions have no common meaning.
#[derive(Clone, Default)]
pub struct Gauge(Option<Arc<dyn GaugeSink>>);

impl Gauge {
    /// Writes to `sink`.
    pub fn new(sink: Arc<dyn GaugeSink>) -> Self {
        Self(Some(sink))
    }

    /// Writes nowhere.
    pub const fn noop() -> Self {
        Self(None)
    }

    /// The number is `value` now.
    pub fn set(&self, value: i64) {
        if let Some(sink) = &self.0 {
            sink.set(value);
        }
    }

    /// The number is `by` more now, or less.
    pub fn add(&self, by: i64) {
        if let Some(sink) = &self.0 {
            sink.add(by);
        }
    }
}

/// How values are distributed; by default they go nowhere.
#[derive(Clone, Default)]
pub struct Histogram(Option<Arc<dyn HistogramSink>>);

impl Histogram {
    /// Records in `sink`.
    pub fn new(sink: Arc<dyn HistogramSink>) -> Self {
        Self(Some(sink))
    }

    /// Records nowhere.
    pub const fn noop() -> Self {
        Self(None)
    }

    /// Adds one value.
    pub fn record(&self, value: u64) {
        if let Some(sink) = &self.0 {
            sink.record(value);
        }
    }

    /// Adds one duration, in nanoseconds.
    pub fn record_duration(&self, duration: Duration) {
        if let Some(sink) = &self.0 {
            sink.record(crate::time::nanos(duration));
        }
    }
}

fn debug(f: &mut fmt::Formatter<'_>, name: &str, is_noop: bool) -> fmt::Result {
    write!(f, "{name}{}", if is_noop { "::noop" } else { "" })
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "Counter", self.0.is_none())
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "Gauge", self.0.is_none())
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "Histogram", self.0.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_recorder_a_handle_is_nothing() {
        let recorder: Arc<dyn Recorder> = Arc::new(NoRecorder);
        let counter = recorder.counter("calls", &[]);
        counter.increment();
        recorder.gauge("level", &[]).set(1);
        recorder.histogram("sizes", &[]).record(1);
        assert!(counter.0.is_none());
        assert_eq!(format!("{counter:?}"), "Counter::noop");
    }
}
