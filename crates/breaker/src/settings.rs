//! What breakers share.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tower_mesh_core::{Clock, Rng};

use crate::{error::CountsOtherwise, policy::Policy, transition::Events};

/// What all breakers of one layer or registry share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// One for all of them, so that it changes for all of them at once.
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) events: Arc<Events>,
}

impl Settings {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy: Arc::new(ArcSwap::from_pointee(policy)),
            ..Self::default()
        }
    }

    /// The same settings, whose policy changes by itself.
    pub(crate) fn apart(&self) -> Self {
        Self {
            policy: Arc::new(ArcSwap::new(self.policy.load_full())),
            ..self.clone()
        }
    }

    /// Has all breakers follow `policy` from now on, if they can.
    pub(crate) fn follow(&self, policy: Policy) -> Result<(), CountsOtherwise> {
        if !self.policy.load().counts_as(&policy) {
            return Err(CountsOtherwise(()));
        }
        self.policy.store(Arc::new(policy));
        Ok(())
    }
}
