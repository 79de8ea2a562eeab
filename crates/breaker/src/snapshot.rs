//! What a breaker knows, of one moment.

use std::{sync::Arc, time::Duration};

use tower_mesh_core::Instant;

use crate::{phase::State, window::Tally};

/// What a breaker knows, of one moment.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Its name.
    pub name: Arc<str>,
    /// The state it is in.
    pub state: State,
    /// When the snapshot was taken, by the breaker's clock.
    pub taken: Instant,
    /// Since when it is in this state.
    pub since: Instant,
    /// Until when it stays open, if it is.
    pub open_until: Option<Instant>,
    /// The calls in the window and the failures among them, if there is a rule for failures.
    pub failures: Option<Tally>,
    /// The calls in the window and the slow ones among them, if there is a rule for slow calls.
    pub slow_calls: Option<Tally>,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Probes under way.
    pub probes_out: u32,
    /// How often in a row it has opened, as far as it remembers: each doubles the next open time.
    pub openings: u8,
    /// How often it has opened by itself.
    pub opened: u64,
    /// How many calls it has refused.
    pub rejected: u64,
}

impl Snapshot {
    /// After what time a call may be admitted again: while it is open.
    pub fn retry_after(&self) -> Option<Duration> {
        Some(self.open_until?.since(self.taken))
    }
}
