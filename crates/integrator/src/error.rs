//! The one error of a mesh.

use std::{fmt, time::Duration};

use tower_mesh_core::{BoxError, Kind, Refusal, Sent, ServiceName};

/// Why a call through the mesh failed.
///
/// Ask it with the predicates; the message is for a person, and the chain of sources keeps what each layer knew: each
/// attempt's endpoint and error, how many endpoints are out and why, where the time went.
pub struct Error(Box<Inner>);

struct Inner {
    service: ServiceName,
    refusal: Option<Refusal>,
    source: BoxError,
}

impl Error {
    /// `source` happened on a call to `service`.
    pub(crate) fn new(service: &ServiceName, source: BoxError) -> Self {
        Self(Box::new(Inner {
            service: service.clone(),
            refusal: Refusal::of(&*source).cloned(),
            source,
        }))
    }

    /// The mesh itself refuses.
    pub(crate) fn refused(service: &ServiceName, refusal: Refusal) -> Self {
        Self::new(service, Box::new(refusal))
    }

    /// The service that was called.
    pub fn service(&self) -> &ServiceName {
        &self.0.service
    }

    /// What it is about, if a layer of the mesh said so; `None` for an error of the user's own service.
    pub fn kind(&self) -> Option<Kind> {
        self.0.refusal.as_ref().map(Refusal::kind)
    }

    /// After what time a call may succeed, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.refusal.as_ref().and_then(Refusal::retry_after)
    }

    /// Whether the request may have reached an endpoint: if not, it is safe to send it again.
    pub fn maybe_sent(&self) -> bool {
        self.0
            .refusal
            .as_ref()
            .is_none_or(|refusal| refusal.sent() == Sent::Maybe)
    }

    /// The registry knows no service of this name.
    pub fn is_service_not_found(&self) -> bool {
        self.is(Kind::ServiceNotFound)
    }

    /// No endpoint of the service may take a call now.
    pub fn is_no_endpoint(&self) -> bool {
        self.is(Kind::NoEndpoint)
    }

    /// The breaker of the service is open.
    pub fn is_circuit_open(&self) -> bool {
        self.is(Kind::CircuitOpen)
    }

    /// The time of the call is up.
    pub fn is_deadline_exceeded(&self) -> bool {
        self.is(Kind::DeadlineExceeded)
    }

    /// Every attempt failed.
    pub fn is_attempts_exhausted(&self) -> bool {
        self.is(Kind::AttemptsExhausted)
    }

    /// As many calls run or wait as may.
    pub fn is_overloaded(&self) -> bool {
        self.is(Kind::Overloaded)
    }

    /// The mesh is shutting down.
    pub fn is_shutting_down(&self) -> bool {
        self.is(Kind::ShuttingDown)
    }

    fn is(&self, kind: Kind) -> bool {
        self.kind() == Some(kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.service, self.0.source)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("service", &self.0.service)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0.source)
    }
}

/// Why a mesh did not start; nothing it had started is left running.
#[derive(Debug)]
pub struct StartError {
    what: String,
    source: Option<BoxError>,
}

impl StartError {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            source: None,
        }
    }

    /// The part that it was to replace does not start any more either.
    pub(crate) fn and_gone(mut self, old: BoxError) -> Self {
        self.what = format!("{}, and the old one did not start again: {old}", self.what);
        self
    }

    pub(crate) fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_word_and_finds_the_refusal_beneath_any_layer() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        let service = ServiceName::new("orders").unwrap();
        let refusal =
            Refusal::local(Kind::CircuitOpen).with_retry_after(Some(Duration::from_secs(2)));
        let error = Error::refused(&service, refusal);
        assert!(error.is_circuit_open() && !error.is_overloaded());
        assert!(!error.maybe_sent());
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
        assert_eq!(error.to_string(), "orders: circuit open (retry after 2.0s)");
    }

    #[test]
    fn an_error_of_the_users_own_service_has_no_kind_and_may_have_been_sent() {
        let service = ServiceName::new("orders").unwrap();
        let error = Error::new(&service, "boom".into());
        assert_eq!(error.kind(), None);
        assert!(error.maybe_sent());
    }
}
