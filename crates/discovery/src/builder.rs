//! What a discovery is made of.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use tower_mesh_core::{Clock, Resolve, Rng};

use crate::{discovery::Discovery, driver::Driver, filter::Filter, shared::Shared};

/// Makes a [`Discovery`] and its [`Driver`]; from [`Discovery::builder`].
#[derive(Debug)]
#[must_use = "nothing is made until `build`"]
pub struct Builder<R> {
    resolve: R,
    clock: Clock,
    rng: Rng,
    settings: Settings,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) negative_ttl: Duration,
    pub(crate) empty_grace: Duration,
    pub(crate) max_services: NonZeroUsize,
    pub(crate) max_endpoints: NonZeroUsize,
    pub(crate) idle_eviction: Duration,
    pub(crate) filter: Filter,
}

impl Default for Settings {
    fn default() -> Self {
        const fn count(n: usize) -> NonZeroUsize {
            NonZeroUsize::new(n).expect("not zero")
        }
        Self {
            negative_ttl: Duration::from_secs(3),
            empty_grace: Duration::from_secs(30),
            max_services: count(10_000),
            max_endpoints: count(100_000),
            idle_eviction: Duration::from_secs(600),
            filter: Filter::default(),
        }
    }
}

impl<R: Resolve> Builder<R> {
    pub(crate) fn new(resolve: R) -> Self {
        Self {
            resolve,
            clock: Clock::default(),
            rng: Rng::default(),
            settings: Settings::default(),
        }
    }

    /// Takes time and timers from `clock`; tokio's unless said otherwise.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Takes chance from `rng`.
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// How long "there is no such service" is believed when the source does not follow the name by itself, or nobody
    /// holds the service. Half of it to one and a half, by chance; 3 s unless said otherwise, at least 100 ms.
    ///
    /// Long enough that a misspelt name costs the registry next to nothing, short enough that a service which is
    /// deployed after its callers is found while somebody watches.
    pub fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.settings.negative_ttl = ttl.max(Duration::from_millis(100));
        self
    }

    /// How long endpoints are kept when a source that is no authority (Consul, DNS) suddenly names none of them, or
    /// less than half; 30 s unless said otherwise, zero to obey at once.
    ///
    /// Registries lose their memory more often than fleets vanish. While the old endpoints are kept, the status says
    /// `suspect`; what has really gone is kept from calls by its breaker.
    pub fn empty_grace(mut self, grace: Duration) -> Self {
        self.settings.empty_grace = grace;
        self
    }

    /// How many services are followed at most; 10,000 unless said otherwise.
    ///
    /// When there is no room, services that nobody holds make place; if all are held, the next is refused.
    pub fn max_services(mut self, most: NonZeroUsize) -> Self {
        self.settings.max_services = most;
        self
    }

    /// How many endpoints a service may have; 100,000 unless said otherwise.
    ///
    /// An update above it is refused, and what was known stays.
    pub fn max_endpoints(mut self, most: NonZeroUsize) -> Self {
        self.settings.max_endpoints = most;
        self
    }

    /// After what time a service that nobody holds is no longer followed; 10 minutes unless said otherwise.
    pub fn idle_eviction(mut self, after: Duration) -> Self {
        self.settings.idle_eviction = after;
        self
    }

    /// Which endpoints callers get to see; those that pass or warn unless said otherwise.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.settings.filter = filter;
        self
    }

    /// Makes the handle, and the driver that does the work: nothing is looked up until that is polled.
    pub fn build(self) -> (Discovery, Driver) {
        let shared = Shared::new(self.settings, Arc::new(self.resolve), self.clock, self.rng);
        let shared = Arc::new(shared);
        (Discovery::new(Arc::clone(&shared)), Driver::new(shared))
    }
}
