//! The layer that waits for the first answer.

use std::{sync::Arc, time::Duration};

use tower_layer::Layer;
use tower_mesh_core::Endpoints;

use crate::{service::Discovered, watch::Watch};

/// Holds calls until the registry has said something of the service, and refuses them if there is no such service; from
/// [`Discovery::layer`](crate::Discovery::layer).
///
/// After the first answer a call passes at the cost of one atomic load. A call that waits is over with its deadline, or
/// after [`wait`](Self::wait) if it has none. Whether one of the endpoints may take the call is the balancer's to say:
/// a service without endpoints passes here.
///
/// # Clone
///
/// Clones, and the services made by them, share one state and hold the service: it is followed as long as one of them
/// lives.
#[derive(Clone, Debug)]
pub struct DiscoveryLayer {
    watch: Arc<Watch>,
    wait: Duration,
}

impl DiscoveryLayer {
    pub(crate) fn new(watch: Arc<Watch>) -> Self {
        Self {
            watch,
            wait: Duration::from_secs(5),
        }
    }

    /// How long a call without a deadline waits for the first answer; 5 s unless said otherwise.
    #[must_use]
    pub fn wait(mut self, limit: Duration) -> Self {
        self.wait = limit;
        self
    }

    /// The endpoints that it waits for; what the balancer beneath picks from.
    pub fn endpoints(&self) -> &Endpoints {
        self.watch.endpoints()
    }
}

impl<S> Layer<S> for DiscoveryLayer {
    type Service = Discovered<S>;

    fn layer(&self, inner: S) -> Discovered<S> {
        Discovered::new(inner, Arc::clone(&self.watch), self.wait)
    }
}
