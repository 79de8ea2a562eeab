//! What is counted of the calls to a service: for the status always, for a recorder if there is one.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tower_mesh_core::{
    Kind, ServiceName,
    metrics::{Counter, Histogram, Recorder},
};

/// Calls begun (upper 40 bits) and in flight (lower 24): one addition counts both.
const IN_FLIGHT_BITS: u32 = 24;
const ONE_BEGUN: u64 = (1 << IN_FLIGHT_BITS) | 1;

/// The numbers of one service.
#[derive(Debug)]
pub(crate) struct Metrics {
    calls: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    abandoned: AtomicU64,
    recorded: Recorded,
}

/// The handles of a recorder, made once: looking a series up costs more than a call.
#[derive(Debug)]
struct Recorded {
    succeeded: Counter,
    failed: Counter,
    refused: Counter,
    abandoned: Counter,
    latency: Histogram,
}

/// What was counted so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) calls: u64,
    pub(crate) in_flight: u64,
    pub(crate) failed: u64,
    pub(crate) refused: u64,
    pub(crate) abandoned: u64,
}

impl Metrics {
    pub(crate) fn new(service: &ServiceName, recorder: &dyn Recorder) -> Self {
        let calls = |outcome| {
            let labels = [("service", service.as_str()), ("outcome", outcome)];
            recorder.counter("tower_mesh_calls_total", &labels)
        };
        Self {
            calls: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            recorded: Recorded {
                succeeded: calls("success"),
                failed: calls("failure"),
                refused: calls("refused"),
                abandoned: calls("abandoned"),
                latency: recorder.histogram(
                    "tower_mesh_call_duration_nanoseconds",
                    &[("service", service.as_str())],
                ),
            },
        }
    }

    pub(crate) fn begin(&self) {
        self.calls.fetch_add(ONE_BEGUN, Ordering::Relaxed);
    }

    /// A call has ended after `took`; `error` is what it failed with, if it did.
    pub(crate) fn end(&self, took: Duration, error: Option<Option<Kind>>) {
        self.calls.fetch_sub(1, Ordering::Release);
        self.recorded.latency.record_duration(took);
        match error {
            None => self.recorded.succeeded.increment(),
            Some(kind) if kind.is_some_and(is_refusal) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                self.recorded.refused.increment();
            }
            Some(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.recorded.failed.increment();
            }
        }
    }

    /// The caller of a call went away.
    pub(crate) fn abandoned(&self) {
        self.calls.fetch_sub(1, Ordering::Release);
        self.abandoned.fetch_add(1, Ordering::Relaxed);
        self.recorded.abandoned.increment();
    }

    pub(crate) fn counts(&self) -> Counts {
        let calls = self.calls.load(Ordering::Acquire);
        Counts {
            calls: calls >> IN_FLIGHT_BITS,
            in_flight: calls & ((1 << IN_FLIGHT_BITS) - 1),
            failed: self.failed.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            abandoned: self.abandoned.load(Ordering::Relaxed),
        }
    }
}

/// Whether the mesh refused the call before any endpoint could fail it.
pub(crate) fn is_refusal(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::ServiceNotFound
            | Kind::NoEndpoint
            | Kind::CircuitOpen
            | Kind::Overloaded
            | Kind::ShuttingDown
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower_mesh_core::metrics::MemoryRecorder;

    #[test]
    fn every_end_of_a_call_is_counted_once_and_told_to_the_recorder() {
        let recorder = MemoryRecorder::new();
        let service = ServiceName::new("orders").unwrap();
        let metrics = Metrics::new(&service, &recorder);
        for _ in 0..5 {
            metrics.begin();
        }
        metrics.end(Duration::from_millis(1), None);
        metrics.end(Duration::from_millis(1), Some(None));
        metrics.end(Duration::ZERO, Some(Some(Kind::Overloaded)));
        metrics.abandoned();
        let counts = metrics.counts();
        assert_eq!(
            counts,
            Counts {
                calls: 5,
                in_flight: 1,
                failed: 1,
                refused: 1,
                abandoned: 1
            }
        );
        let snapshot = recorder.snapshot();
        for outcome in ["success", "failure", "refused", "abandoned"] {
            let labels = [("service", "orders"), ("outcome", outcome)];
            assert_eq!(
                snapshot.counter("tower_mesh_calls_total", &labels),
                1,
                "{outcome}"
            );
        }
    }
}
