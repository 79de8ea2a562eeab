//! What is counted of the requests that are served.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tower_mesh_core::{
    Recorder,
    metrics::{Counter, Histogram},
};

/// Requests begun (upper 40 bits) and in flight (lower 24): one addition counts both.
const IN_FLIGHT_BITS: u32 = 24;
const ONE_BEGUN: u64 = (1 << IN_FLIGHT_BITS) | 1;

/// How the requests of a server ended, see [`ServerLayer::counts`](super::ServerLayer::counts).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ServerCounts {
    /// Requests that came, health checks not among them.
    pub requests: u64,
    /// Requests whose answer, to the end of its body, is not out.
    pub in_flight: u64,
    /// Answers of the handler below 500.
    pub answered: u64,
    /// Answers of the handler from 500 on, its errors and panics, and those that took too long.
    pub failed: u64,
    /// Panics, which are among the failures.
    pub panicked: u64,
    /// Requests that never came to the handler: expired, with a deadline nobody can read, one too many, denied.
    pub refused: u64,
    /// Requests whose sender went away before there was an answer.
    pub abandoned: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    begun: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    refused: AtomicU64,
    abandoned: AtomicU64,
    recorded: Recorded,
}

#[derive(Debug, Default)]
struct Recorded {
    answered: Counter,
    failed: Counter,
    refused: Counter,
    abandoned: Counter,
    took: Histogram,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Answered,
    Failed,
    Refused,
    Abandoned,
}

impl Counts {
    pub(super) fn recorded_by(recorder: &dyn Recorder) -> Self {
        let requests =
            |outcome| recorder.counter("tower_mesh_server_requests_total", &[("outcome", outcome)]);
        Self {
            recorded: Recorded {
                answered: requests("answered"),
                failed: requests("failed"),
                refused: requests("refused"),
                abandoned: requests("abandoned"),
                took: recorder.histogram("tower_mesh_server_request_duration_nanoseconds", &[]),
            },
            ..Self::default()
        }
    }

    pub(super) fn end(&self, end: End, took: Duration) {
        let (count, recorded) = match end {
            End::Answered => (&self.answered, &self.recorded.answered),
            End::Failed => (&self.failed, &self.recorded.failed),
            End::Refused => (&self.refused, &self.recorded.refused),
            End::Abandoned => (&self.abandoned, &self.recorded.abandoned),
        };
        count.fetch_add(1, Ordering::Relaxed);
        recorded.increment();
        if end != End::Refused {
            self.recorded.took.record_duration(took);
        }
    }

    pub(super) fn panicked(&self) {
        self.panicked.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> ServerCounts {
        let begun = self.begun.load(Ordering::Acquire);
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ServerCounts {
            requests: begun >> IN_FLIGHT_BITS,
            in_flight: begun & ((1 << IN_FLIGHT_BITS) - 1),
            answered: read(&self.answered),
            failed: read(&self.failed),
            panicked: read(&self.panicked),
            refused: read(&self.refused),
            abandoned: read(&self.abandoned),
        }
    }
}

/// A request in flight: goes from its future to the body of its answer.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Counts>);

impl InFlight {
    pub(super) fn new(counts: &Arc<Counts>) -> Self {
        counts.begun.fetch_add(ONE_BEGUN, Ordering::Relaxed);
        Self(Arc::clone(counts))
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.begun.fetch_sub(1, Ordering::Release);
    }
}
