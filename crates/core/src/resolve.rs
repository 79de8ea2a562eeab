//! What a registry offers to those who look services up.

use std::{fmt, pin::Pin, sync::Arc};

use futures_core::Stream;

use crate::{endpoint::Endpoint, name::ServiceName, outcome::BoxError};

/// Finds the endpoints of a service and follows them.
///
/// A source only reports; caching, last-known-good, filtering and the comparison of sets are discovery's. The public
/// conformance suite (feature `testing`) tells whether an implementation keeps to what is said here.
pub trait Resolve: Send + Sync + 'static {
    /// Follows the endpoints of `service`.
    ///
    /// The first item comes as soon as the source has an answer; then one for each change. An error is not the end:
    /// the source goes on by itself, with a backoff of its own. Dropping the stream ends what it does.
    fn resolve(&self, service: &ServiceName) -> Updates;

    /// Whether an answer without endpoints is to be believed at once.
    fn empties(&self) -> Empties;

    /// The word for this source in status and logs, such as `consul`.
    fn name(&self) -> &'static str;
}

/// A shared source is a source.
impl<R: Resolve + ?Sized> Resolve for Arc<R> {
    fn resolve(&self, service: &ServiceName) -> Updates {
        (**self).resolve(service)
    }

    fn empties(&self) -> Empties {
        (**self).empties()
    }

    fn name(&self) -> &'static str {
        (**self).name()
    }
}

/// The changes of one service, as a [`Resolve`] reports them.
pub type Updates = Pin<Box<dyn Stream<Item = Result<Update, ResolveError>> + Send>>;

/// One report about a service.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Update {
    /// These are all its endpoints.
    Replace(Vec<Endpoint>),
    /// Some have changed since the last report.
    Patch {
        /// New, or described anew.
        upsert: Vec<Endpoint>,
        /// The ids of those that are gone.
        remove: Vec<Box<str>>,
    },
    /// There is no such service.
    Absent,
}

/// What an answer without endpoints, or with less than half of them, means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empties {
    /// It is the truth: the source is the authority (memory, a file, a fixed list).
    Authoritative,
    /// It may be an accident of the source (Consul, DNS): the old endpoints are held for a while.
    Suspect,
}

/// A source could not answer this time; what was known stays valid.
#[derive(Debug)]
pub struct ResolveError {
    message: Box<str>,
    source: Option<BoxError>,
}

impl ResolveError {
    /// An error that says what failed and what to do about it.
    pub fn new(message: impl Into<Box<str>>) -> Self {
        Self {
            message: message.into(),
            source: None,
        }
    }

    /// The same, with its cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ResolveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
