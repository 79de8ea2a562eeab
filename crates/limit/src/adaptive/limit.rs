//! A look at an adaptive limit, a hand on it, and its ears.

use std::{num::NonZeroUsize, sync::Arc};

use tower_layer::Identity;
use tower_mesh_core::{Endpoint, NewLayer};

use super::{algorithm::Why, judge::LimitJudge, sample::SampleLayer};
use crate::bulkhead::Pool;

/// The limit of a bulkhead, as it adapts: where it hears how attempts end, and what it shows of itself.
///
/// As a [`NewLayer`] for endpoints it adds no service: a judge at the gate of each endpoint tells it how attempts end,
/// and keeps nobody out. As [`sample`](Self::sample) it is a layer for a service that has no endpoints.
///
/// Of a bulkhead whose limit is fixed it hears nothing and attaches nothing.
///
/// # Clone
///
/// A clone is a handle on the same limit.
#[derive(Clone, Debug)]
pub struct AdaptiveLimit {
    pool: Arc<Pool>,
}

/// What a limit was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdaptiveSnapshot {
    /// How many calls may run at once.
    pub limit: usize,
    /// How many run. More than `limit` only after the limit was lowered, until enough of them have ended.
    pub in_use: usize,
    /// It never goes below this.
    pub min: usize,
    /// It never goes above this.
    pub max: usize,
    /// Why it was last moved.
    pub why: Why,
    /// How often it was ever lowered.
    pub lowered: u64,
    /// Whether it adapts at all: it does not if it is fixed, or [suspended](AdaptiveLimit::suspend).
    pub adapts: bool,
}

impl AdaptiveLimit {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        Self { pool }
    }

    /// Where it is now.
    pub fn snapshot(&self) -> AdaptiveSnapshot {
        let count = self.pool.permits.count();
        let Some(control) = &self.pool.control else {
            return AdaptiveSnapshot {
                limit: count.limit,
                in_use: count.out,
                min: count.limit,
                max: count.limit,
                why: Why::Start,
                lowered: 0,
                adapts: false,
            };
        };
        let view = control.view();
        AdaptiveSnapshot {
            limit: view.limit,
            in_use: count.out,
            min: view.min,
            max: view.max,
            why: view.why,
            lowered: view.lowerings,
            adapts: !view.suspended,
        }
    }

    /// Puts it where an earlier run of the program has left it; the nearest that the bounds allow.
    ///
    /// It goes on from there: what is too low grows as after an overload, and is forgotten likewise. Save the `limit` of
    /// a [`snapshot`](Self::snapshot), and do not restore it when it is older than the overload it came from may last.
    pub fn restore(&self, limit: NonZeroUsize) {
        if let Some(control) = &self.pool.control {
            control.restore(
                &self.pool.permits,
                limit.get(),
                self.pool.settings.clock.now(),
            );
        }
    }

    /// Leaves it at its upper bound until it is [resumed](Self::resume), and hears nothing meanwhile.
    pub fn suspend(&self) {
        self.set_suspended(true);
    }

    /// Lets it adapt again, from its upper bound.
    pub fn resume(&self) {
        self.set_suspended(false);
    }

    fn set_suspended(&self, suspended: bool) {
        if let Some(control) = &self.pool.control {
            control.suspend(
                &self.pool.permits,
                self.pool.settings.clock.now(),
                suspended,
            );
        }
    }

    /// A layer that tells it how the calls of a service end: for a service that has no endpoints, beneath the bulkhead.
    ///
    /// A response is judged by its head; see [`SampleLayer::classify`].
    pub fn sample(&self) -> SampleLayer {
        SampleLayer::new(Arc::clone(&self.pool))
    }
}

impl NewLayer<Endpoint> for AdaptiveLimit {
    type Layer = Identity;

    fn layer_for(&self, endpoint: &Endpoint) -> Identity {
        if self.pool.control.is_some() {
            LimitJudge::attach(endpoint, &self.pool);
        }
        Identity::new()
    }
}
