//! What a layer and its services know of their service.

use std::{sync::Arc, time::Duration};

use tower_mesh_core::{BoxError, Clock, Endpoints, Kind, Resolution};

use crate::{
    discovery::Discovery,
    error::{ServiceNotFound, Unresolved},
    shared::Followed,
};

#[derive(Debug)]
pub(crate) struct Watch {
    endpoints: Endpoints,
    followed: Followed,
    discovery: Discovery,
}

impl Watch {
    pub(crate) fn new(discovery: Discovery, endpoints: Endpoints, followed: Followed) -> Arc<Self> {
        Arc::new(Self {
            endpoints,
            followed,
            discovery,
        })
    }

    pub(crate) fn resolution(&self) -> Resolution {
        self.endpoints.resolution()
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.discovery.clock()
    }

    /// Why a call to a service that is absent cannot be made.
    #[cold]
    pub(crate) fn absent(&self) -> BoxError {
        let service = self.endpoints.service();
        if self.followed == Followed::Full {
            let most = self.discovery.max_services();
            let why = format!("{service}: {most} services are in use already (max_services)");
            return Unresolved::new(service, Kind::Overloaded, why).into();
        }
        if self.discovery.is_shut_down() {
            let why = format!("{service}: discovery has ended");
            return Unresolved::new(service, Kind::ShuttingDown, why).into();
        }
        ServiceNotFound::new(service, self.discovery.source()).into()
    }

    /// Why a call that has waited in vain cannot be made: its deadline is over, or `limit` is.
    #[cold]
    pub(crate) fn unresolved(&self, limit: Option<Duration>) -> BoxError {
        let service = self.endpoints.service();
        let mut why = format!("{service}: no answer from {}", self.discovery.source());
        let kind = match limit {
            None => Kind::DeadlineExceeded,
            Some(limit) => {
                why += &format!(" within {limit:?}");
                Kind::NoEndpoint
            }
        };
        if let Some(error) = self.discovery.last_error(service) {
            why = why + ": " + &error;
        }
        Unresolved::new(service, kind, why).into()
    }
}
