//! What is known of the services, for a person or a dashboard.

use std::{sync::Arc, time::Duration};

use tower_mesh_core::{Instant, Resolution, ServiceName};

use crate::shared::Entry;

/// How discovery stands with one service; from [`Discovery::status`](crate::Discovery::status).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// The service.
    pub service: ServiceName,
    /// The source's word for itself, such as `consul`.
    pub source: &'static str,
    /// What callers are told.
    pub resolution: Resolution,
    /// Counts the sets that callers have seen.
    pub revision: u64,
    /// How many endpoints callers see.
    pub endpoints: usize,
    /// How many more the source names, which the filter keeps from callers.
    pub filtered: usize,
    /// How many the last answer named that were duplicates, or that nothing can listen at.
    pub dropped: usize,
    /// How old the last good answer is; `None` before the first.
    ///
    /// A source reports changes, so this grows too while a registry is well and has nothing new to say. What callers see
    /// is out of date by no more than [`failing_for`](Self::failing_for).
    pub age: Option<Duration>,
    /// For how long the source has answered with nothing but errors; `None` if its last word was an answer.
    pub failing_for: Option<Duration>,
    /// Why the source cannot answer, until it does again.
    pub last_error: Option<Arc<str>>,
    /// Whether callers see endpoints which the source, suspiciously, no longer names.
    pub suspect: bool,
    /// How many hold the service: layers, balancers, streams.
    pub holders: usize,
}

impl ServiceStatus {
    pub(crate) fn new(entry: &Entry, source: &'static str, now: Instant) -> Self {
        let report = entry.report().clone();
        let set = entry.endpoints.current();
        Self {
            service: entry.service().clone(),
            source,
            resolution: set.resolution(),
            revision: set.revision(),
            endpoints: set.endpoints().len(),
            filtered: report.filtered,
            dropped: report.dropped,
            age: report.answered.map(|at| now.since(at)),
            failing_for: report.failing.map(|since| now.since(since)),
            last_error: report.error,
            suspect: report.suspect,
            holders: entry.holders(),
        }
    }
}
