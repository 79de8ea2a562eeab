//! The layer that waits for the first answer.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use tower_layer::Layer;
use tower_mesh_core::{
    Endpoints, PerCall,
    frame::{Joined, Own},
};

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
pub struct DiscoveryLayer<G = Own> {
    watch: Arc<Watch>,
    wait: Duration,
    framing: PhantomData<G>,
}

impl DiscoveryLayer {
    pub(crate) fn new(watch: Arc<Watch>) -> Self {
        Self {
            watch,
            wait: Duration::from_secs(5),
            framing: PhantomData,
        }
    }
}

impl<G> DiscoveryLayer<G> {
    /// Says that a layer above opens the frame of the calls, with the same clock: they need no room for a timer.
    ///
    /// Without such a layer a call panics when it is first polled.
    pub fn joined(self) -> DiscoveryLayer<Joined> {
        DiscoveryLayer {
            watch: self.watch,
            wait: self.wait,
            framing: PhantomData,
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

    /// Puts it directly over `inner`, which must be always ready: once there has been an answer it is called in `call`,
    /// without a clone and without being asked.
    ///
    /// Right for a service that reserves nothing in `poll_ready` and begins nothing before its future is polled, as all
    /// of tower-mesh's.
    pub fn over<S>(&self, inner: S) -> Discovered<S, G> {
        Discovered::new(inner, Arc::clone(&self.watch), self.wait)
    }
}

impl<S, G> Layer<S> for DiscoveryLayer<G> {
    type Service = Discovered<PerCall<S>, G>;

    fn layer(&self, inner: S) -> Self::Service {
        self.over(PerCall::new(inner))
    }
}
