//! The handle: ask for the endpoints of a service.

use std::sync::Arc;

use tower_mesh_core::{Clock, Endpoint, Endpoints, NewService, Resolve, ServiceName};

use crate::{
    builder::Builder,
    changes::Changes,
    layer::DiscoveryLayer,
    shared::{Followed, Shared},
    status::ServiceStatus,
    watch::Watch,
};

/// Knows the endpoints of services, and keeps them when the registry does not answer.
///
/// A service is looked up when it is first asked for, once however many ask, and then followed as long as somebody
/// holds its [`Endpoints`]. The [`Driver`](crate::Driver) does the work; handles only ask.
///
/// # Clone
///
/// Clones share everything. The driver ends when the last of them is gone; layers and streams of changes count.
#[derive(Clone, Debug)]
pub struct Discovery(Arc<Handle>);

/// Its end is the end of the last handle: the driver holds `Shared` alone.
#[derive(Debug)]
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Discovery {
    /// Begins a discovery that asks `resolve`: a registry of your own, or an `Arc<dyn Resolve>`.
    pub fn builder<R: Resolve>(resolve: R) -> Builder<R> {
        Builder::new(resolve)
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Handle(shared)))
    }

    /// The endpoints of `service`, followed as long as a clone of them is held.
    ///
    /// It neither waits nor fails: the set says whether there has been an answer, and
    /// [`Endpoints::resolved`] waits for it. If the driver has ended, or
    /// [`max_services`](Builder::max_services) are held already, a service that is not known yet is absent for good.
    pub fn endpoints(&self, service: &ServiceName) -> Endpoints {
        self.follow(service).0
    }

    /// Looks `service` up again now, if it is followed; meanwhile what is known stays.
    ///
    /// A look-up that is under way and has brought nothing yet is not disturbed. [`Endpoints::changed`] tells when the
    /// answer differs.
    pub fn refresh(&self, service: &ServiceName) {
        if let Some(entry) = self.shared().entry(service) {
            entry.refresh();
        }
    }

    /// How each service that is followed stands, by name.
    pub fn status(&self) -> Vec<ServiceStatus> {
        let shared = self.shared();
        let now = shared.clock.now();
        let mut status: Vec<_> = shared
            .entries()
            .iter()
            .map(|entry| ServiceStatus::new(entry, shared.source, now))
            .collect();
        status.sort_by(|a, b| a.service.cmp(&b.service));
        status
    }

    /// A layer that holds calls until the first answer for `service`, and refuses them if there is no such service.
    pub fn layer(&self, service: &ServiceName) -> DiscoveryLayer {
        let (endpoints, followed) = self.follow(service);
        DiscoveryLayer::new(Watch::new(self.clone(), endpoints, followed))
    }

    /// The endpoints of `service` as tower's own balancer wants them, each with a service that `new_service` makes.
    pub fn changes<N>(&self, service: &ServiceName, new_service: N) -> Changes<N>
    where
        N: NewService<Endpoint>,
    {
        Changes::new(self.clone(), self.endpoints(service), new_service)
    }

    /// Ends the driver, as if every handle were gone: what is known stays, without further changes.
    pub fn shutdown(&self) {
        self.shared().close();
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.shared().is_closed()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.shared().clock
    }

    /// The source's word for itself.
    pub(crate) fn source(&self) -> &'static str {
        self.shared().source
    }

    /// Why the source could not answer for `service` last.
    pub(crate) fn last_error(&self, service: &ServiceName) -> Option<Arc<str>> {
        self.shared().entry(service)?.report().error.clone()
    }

    /// How many services may be followed.
    pub(crate) fn max_services(&self) -> usize {
        self.shared().settings.max_services.get()
    }

    fn follow(&self, service: &ServiceName) -> (Endpoints, Followed) {
        self.shared().follow(service)
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }
}
