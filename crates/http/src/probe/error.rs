//! Why a probe has not found an endpoint well.

use std::{error::Error, fmt};

use http::StatusCode;
use tower_mesh_core::BoxError;

/// An endpoint was not found well.
///
/// Either it has [said so itself](Self::is_definite), or there was no answer, or none that can be understood.
#[derive(Debug)]
pub struct ProbeError(Why);

#[derive(Debug)]
enum Why {
    Connect(BoxError),
    Exchange(BoxError),
    Status(StatusCode),
    Serving(u64),
    Code(Box<str>),
    NoGrpc(&'static str),
}

impl ProbeError {
    pub(super) fn connect(error: BoxError) -> Self {
        Self(Why::Connect(error))
    }

    pub(super) fn exchange(error: impl Into<BoxError>) -> Self {
        Self(Why::Exchange(error.into()))
    }

    pub(super) fn status(status: StatusCode) -> Self {
        Self(Why::Status(status))
    }

    pub(super) fn serving(status: u64) -> Self {
        Self(Why::Serving(status))
    }

    pub(super) fn code(code: &str) -> Self {
        // A code has two digits; what has more is somebody's text.
        Self(Why::Code(code.chars().take(16).collect()))
    }

    pub(super) fn no_grpc(what: &'static str) -> Self {
        Self(Why::NoGrpc(what))
    }

    /// Whether the endpoint has answered, and the answer was that it is unwell: a status that was not expected, or a
    /// serving status other than `SERVING`. Envoy believes that at once, where it waits for several failures else.
    pub fn is_definite(&self) -> bool {
        matches!(self.0, Why::Status(_) | Why::Serving(_))
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Why::Connect(error) => write!(f, "no connection: {error}"),
            Why::Exchange(error) => write!(f, "the connection broke: {error}"),
            Why::Status(status) => write!(f, "it answered {}", status.as_u16()),
            Why::Serving(2) => f.write_str("it says that it is not serving"),
            Why::Serving(3) => f.write_str("it does not know the service"),
            Why::Serving(_) => f.write_str("it does not say that it is serving"),
            Why::Code(code) => write!(f, "it answered with grpc-status {code}"),
            Why::NoGrpc(what) => write!(f, "its answer is no health of gRPC: {what}"),
        }
    }
}

impl Error for ProbeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Why::Connect(error) | Why::Exchange(error) => Some(&**error),
            _ => None,
        }
    }
}
