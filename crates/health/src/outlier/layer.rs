//! The layer that gives endpoints a judge, and the handle of what it knows.

use std::{fmt, sync::Arc, time::Duration};

use tower_layer::Identity;
use tower_mesh_core::{Clock, Endpoint, Endpoints, NewLayer, Rng};

use crate::outlier::{
    driver::OutlierDriver,
    group::Group,
    policy::OutlierPolicy,
    snapshot::{OutlierSnapshot, SavedEjection},
};

/// Keeps calls from endpoints that fail where their peers do not.
///
/// As a [`NewLayer`] for endpoints it adds no service: it has a judge stand at the endpoint's gate, so that the balancer
/// goes elsewhere, and no caller sees an error. The judge hears of failures alone; a call that succeeds costs nothing
/// more.
///
/// # Clone
///
/// Clones, and their [handles](Outliers), share one state.
///
/// # Example
///
/// See the [crate](crate).
#[derive(Clone, Debug)]
pub struct OutlierLayer(Outliers);

/// A handle of the ejections of one service: shows them, ends them, restores them.
///
/// # Clone
///
/// A clone is the same handle. The driver ends when the last handle and the last layer are gone.
#[derive(Clone)]
pub struct Outliers(Arc<Handle>);

struct Handle(Arc<Group>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What to eject from, and how; from [`OutlierLayer::builder`].
#[derive(Debug)]
#[must_use = "it makes nothing before `build`"]
pub struct OutlierBuilder {
    endpoints: Endpoints,
    policy: OutlierPolicy,
    clock: Clock,
    rng: Rng,
}

impl OutlierLayer {
    /// Begins a layer for the endpoints of one service, which are compared with each other.
    pub fn builder(endpoints: &Endpoints) -> OutlierBuilder {
        OutlierBuilder {
            endpoints: endpoints.clone(),
            policy: OutlierPolicy::default(),
            clock: Clock::default(),
            rng: Rng::default(),
        }
    }

    /// The handle.
    pub fn handle(&self) -> &Outliers {
        &self.0
    }

    pub(crate) fn attach(&self, endpoint: &Endpoint) {
        self.0.group().attach(endpoint);
    }
}

impl NewLayer<Endpoint> for OutlierLayer {
    type Layer = Identity;

    fn layer_for(&self, endpoint: &Endpoint) -> Identity {
        self.attach(endpoint);
        Identity::new()
    }
}

impl OutlierBuilder {
    /// Ejects by `policy` instead of the default.
    pub fn policy(mut self, policy: OutlierPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Takes time from `clock`.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Takes the jitter of ejection times from `rng`.
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// The layer, and the driver that does the work.
    pub fn build(self) -> (OutlierLayer, OutlierDriver) {
        let group = Group::new(self.endpoints, self.policy, self.clock, self.rng);
        let driver = OutlierDriver::new(Arc::clone(&group));
        (OutlierLayer(Outliers(Arc::new(Handle(group)))), driver)
    }
}

impl Outliers {
    /// Who is ejected, until when, how often and why.
    pub fn snapshot(&self) -> OutlierSnapshot {
        self.group().snapshot()
    }

    /// Ejects who was ejected when `saved` was taken, `elapsed` ago, for the rest of the time.
    ///
    /// Ejections whose time is over meanwhile are dropped. Endpoints that are not known yet are waited for as long as
    /// their ejection would last. Bounds hold as for any ejection; no time is longer than the policy's longest.
    pub fn restore(&self, saved: impl IntoIterator<Item = SavedEjection>, elapsed: Duration) {
        self.group().restore(saved.into_iter().collect(), elapsed);
    }

    /// Lets `endpoint` take calls again, if it is ejected. How often it was ejected in a row stays known.
    pub fn readmit(&self, endpoint: &Endpoint) {
        self.group().readmit(endpoint);
    }

    /// The policy as it is now.
    pub fn policy(&self) -> Arc<OutlierPolicy> {
        self.group().policy()
    }

    /// Goes on by another policy. Who is ejected stays so for the time that was set, unless no rule is left.
    pub fn set_policy(&self, policy: OutlierPolicy) {
        self.group().set_policy(policy);
    }

    fn group(&self) -> &Arc<Group> {
        &self.0.0
    }
}

impl fmt::Debug for Outliers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outliers").field(self.group()).finish()
    }
}
