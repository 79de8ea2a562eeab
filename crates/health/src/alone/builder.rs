use std::{fmt, future::Future};

use tower_mesh_core::{BoxError, Clock, Endpoint, Endpoints, Ratio, Rng, ServiceName};

use crate::{
    alone::{driver::HealthLayerDriver, layer::HealthLayer},
    checks::{CheckPolicy, HealthCheck, HealthChecker},
    outlier::{OutlierLayer, OutlierPolicy},
};

/// How a service on its own is judged; from [`HealthLayer::builder`].
#[must_use = "it makes nothing before `build`"]
pub struct HealthLayerBuilder {
    name: ServiceName,
    policy: OutlierPolicy,
    check: Option<Box<dyn HealthCheck>>,
    check_policy: CheckPolicy,
    clock: Clock,
    rng: Rng,
}

impl HealthLayerBuilder {
    pub(crate) fn new(name: &ServiceName) -> Self {
        Self {
            name: name.clone(),
            policy: OutlierPolicy::default(),
            check: None,
            check_policy: CheckPolicy::default(),
            clock: Clock::default(),
            rng: Rng::default(),
        }
    }

    /// Judges its calls by `policy`: failures in a row and the share of failures, as it has no peers to be compared with.
    /// Bounds mean nothing here.
    pub fn policy(mut self, policy: OutlierPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Also asks `check`: a closure without arguments that gives a future of a `Result`. What panics, hangs or gives an
    /// error has failed.
    pub fn check<F, A, E>(mut self, check: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        self.check = Some(Box::new(move |_: Endpoint| check()));
        self
    }

    /// Checks by `policy` instead of the default.
    pub fn check_policy(mut self, policy: CheckPolicy) -> Self {
        self.check_policy = policy;
        self
    }

    /// Takes time from `clock`.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Takes jitter from `rng`.
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// The layer, and the driver that does the work.
    pub fn build(self) -> (HealthLayer, HealthLayerDriver) {
        // It is judged as an endpoint is, of which there is one; nobody connects to its address.
        let endpoint = Endpoint::new(([0, 0, 0, 0], 0).into()).with_id(self.name.as_str());
        let endpoints = Endpoints::fixed(self.name, [endpoint.clone()]);
        let alone = self.policy.max_share(Ratio::ONE).min_healthy(0);
        let (outliers, ejecting) = OutlierLayer::builder(&endpoints)
            .policy(alone)
            .clock(self.clock.clone())
            .rng(self.rng.clone())
            .build();
        let (clock, rng) = (self.clock.clone(), self.rng);
        let checks = self.check.map(|check| {
            let (checker, checking) = HealthChecker::boxed(check)
                .policy(self.check_policy)
                .clock(clock)
                .rng(rng)
                .build();
            checker.watch(&endpoints);
            (checker, checking)
        });
        let (checker, checking) = checks.unzip();
        let layer = HealthLayer::new(endpoint, outliers, checker, self.clock);
        (layer, HealthLayerDriver::new(ejecting, checking))
    }
}

impl fmt::Debug for HealthLayerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthLayerBuilder")
            .field("name", &self.name)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
