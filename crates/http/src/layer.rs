//! The layer that pins a client to one endpoint.

use std::sync::Arc;

use tower_layer::Layer;
use tower_mesh_core::Endpoint;

use crate::service::{Addressed, Target};

/// Pins a client to one endpoint: see [`Addressed`].
///
/// # Clone
///
/// A clone is the same; there is no state.
#[derive(Clone, Debug)]
pub struct AddressLayer {
    target: Arc<Target>,
}

impl AddressLayer {
    /// Sends every request to `endpoint`.
    pub fn new(endpoint: &Endpoint) -> Self {
        Self {
            target: Arc::new(Target::of(endpoint.address())),
        }
    }
}

impl<S> Layer<S> for AddressLayer {
    type Service = Addressed<S>;

    fn layer(&self, inner: S) -> Addressed<S> {
        Addressed::to(Arc::clone(&self.target), inner)
    }
}
