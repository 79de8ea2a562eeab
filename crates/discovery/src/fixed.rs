//! Endpoints that are known beforehand.

use std::collections::HashMap;

use futures_util::stream::{self, StreamExt};
use tower_mesh_core::{Empties, Endpoint, Resolve, ServiceName, Update, Updates};

/// A source of endpoints that do not change: from code, or from a configuration file.
///
/// It is an authority: a service without endpoints has none, and one that it was not told of does not exist.
#[derive(Clone, Debug, Default)]
pub struct Static(HashMap<ServiceName, Vec<Endpoint>>);

impl Static {
    /// A source that knows no service.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds endpoints to `service`.
    #[must_use]
    pub fn service(
        mut self,
        service: impl Into<ServiceName>,
        endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Self {
        self.0.entry(service.into()).or_default().extend(endpoints);
        self
    }
}

impl Resolve for Static {
    fn resolve(&self, service: &ServiceName) -> Updates {
        let update = match self.0.get(service) {
            Some(endpoints) => Update::Replace(endpoints.clone()),
            None => Update::Absent,
        };
        Box::pin(stream::once(async { Ok(update) }).chain(stream::pending()))
    }

    fn empties(&self) -> Empties {
        Empties::Authoritative
    }

    fn name(&self) -> &'static str {
        "static"
    }
}
