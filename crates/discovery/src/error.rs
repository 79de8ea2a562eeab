//! What calls fail with.

use std::{error::Error, fmt};

use tower_mesh_core::{Kind, Refusal, ServiceName};

/// The registry knows no service of this name.
///
/// Nothing was sent. Check the name, and that the service has been registered.
#[derive(Clone, Debug)]
pub struct ServiceNotFound {
    service: ServiceName,
    refusal: Refusal,
}

impl ServiceNotFound {
    pub(crate) fn new(service: &ServiceName, source: &str) -> Self {
        Self {
            service: service.clone(),
            refusal: Refusal::local(Kind::ServiceNotFound)
                .with_context(format!("{source} knows no service named {service}")),
        }
    }

    /// The service that was called.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }
}

impl fmt::Display for ServiceNotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no service {}", self.service)
    }
}

impl Error for ServiceNotFound {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.refusal)
    }
}

/// It could not be found out in time where the service answers; its [`Refusal`] says why.
///
/// Nothing was sent. The kind is [`DeadlineExceeded`](Kind::DeadlineExceeded) or [`NoEndpoint`](Kind::NoEndpoint) if
/// the registry has not answered in time, [`ShuttingDown`](Kind::ShuttingDown) if discovery has ended, and
/// [`Overloaded`](Kind::Overloaded) if too many services are in use.
#[derive(Clone, Debug)]
pub struct Unresolved {
    service: ServiceName,
    refusal: Refusal,
}

impl Unresolved {
    pub(crate) fn new(service: &ServiceName, kind: Kind, why: String) -> Self {
        Self {
            service: service.clone(),
            refusal: Refusal::local(kind).with_context(why),
        }
    }

    /// The service that was called.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is not known where {} answers", self.service)
    }
}

impl Error for Unresolved {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.refusal)
    }
}
