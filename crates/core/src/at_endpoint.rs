//! Which endpoint an error comes from.

use std::{error::Error, fmt};

use crate::{endpoint::Endpoint, outcome::BoxError};

/// An error of an attempt, and the endpoint that the attempt went to.
///
/// The balancer wraps in it what its endpoint services return; the error itself is its [`source`](Error::source), with
/// all that it says.
#[derive(Debug)]
pub struct AtEndpoint {
    endpoint: Endpoint,
    source: BoxError,
}

impl AtEndpoint {
    /// `source`, which came from an attempt at `endpoint`.
    pub fn new(endpoint: Endpoint, source: impl Into<BoxError>) -> Self {
        Self {
            endpoint,
            source: source.into(),
        }
    }

    /// What `error` or its causes say of the endpoint, the outermost first.
    pub fn of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        std::iter::successors(Some(error), |&error| error.source())
            .find_map(|error| error.downcast_ref())
    }

    /// Where the attempt went.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The error itself.
    pub fn into_inner(self) -> BoxError {
        self.source
    }
}

impl fmt::Display for AtEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.endpoint.address().to_string();
        match self.endpoint.id() {
            id if id == address => write!(f, "endpoint {address} failed"),
            id => write!(f, "endpoint {id} ({address}) failed"),
        }
    }
}

impl Error for AtEndpoint {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::{Kind, Refusal, Sent};

    #[test]
    fn it_names_the_endpoint_and_hides_nothing() {
        let endpoint = Endpoint::new(([10, 0, 0, 1], 80).into());
        let refusal = Refusal::remote(Kind::Connect, Sent::Never);
        let error: BoxError = AtEndpoint::new(endpoint.clone(), refusal.clone()).into();
        assert_eq!(error.to_string(), "endpoint 10.0.0.1:80 failed");
        assert_eq!(Refusal::of(&*error), Some(&refusal));

        let named = AtEndpoint::new(endpoint.with_id("orders-1"), error);
        assert_eq!(named.to_string(), "endpoint orders-1 (10.0.0.1:80) failed");
        let found = AtEndpoint::of(&named).map(|at| at.endpoint().id());
        assert_eq!(found, Some("orders-1"), "the outermost");
        assert!(AtEndpoint::of(&refusal).is_none());
    }
}
