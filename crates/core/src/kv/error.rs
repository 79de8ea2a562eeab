//! What a store could not do.

use std::{borrow::Cow, error::Error, fmt};

use super::{Key, Lease, MAX_VALUE};
use crate::outcome::BoxError;

/// A store could not do what it was asked.
#[derive(Debug)]
pub struct KeyValueError {
    kind: KeyValueErrorKind,
    message: Cow<'static, str>,
    source: Option<BoxError>,
}

/// Why a store could not do what it was asked, and so what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyValueErrorKind {
    /// The key is not as expected: read it and decide anew.
    Conflict,
    /// The lease has ended, and its keys are deleted: stop what it protected, ask for another.
    LeaseGone,
    /// The store cannot be reached, or cannot answer now: try again later. A write may have been done.
    Unavailable,
    /// The store does not take this: trying again changes nothing.
    Refused,
}

impl KeyValueError {
    /// An error that says what failed and what to do about it.
    pub fn new(kind: KeyValueErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// `key` has another revision than expected: `found`, or none because it is not there.
    pub fn conflict(key: &Key, found: Option<u64>) -> Self {
        let message = match found {
            Some(revision) => format!("key {key} has changed: its revision is {revision}"),
            None => format!("key {key} has changed: it is not there"),
        };
        Self::new(KeyValueErrorKind::Conflict, message)
    }

    /// `lease` has ended.
    pub fn lease_gone(lease: &Lease) -> Self {
        let message = format!("lease {} has ended, grant another", lease.id());
        Self::new(KeyValueErrorKind::LeaseGone, message)
    }

    /// The store did not answer.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(KeyValueErrorKind::Unavailable, message)
    }

    /// A value for `key` is larger than [`MAX_VALUE`].
    pub fn too_large(key: &Key, len: usize) -> Self {
        let message = format!("a value of {len} bytes for key {key}: at most {MAX_VALUE} fit");
        Self::new(KeyValueErrorKind::Refused, message)
    }

    /// The same, with its cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Why, and so what to do about it.
    pub fn kind(&self) -> KeyValueErrorKind {
        self.kind
    }

    /// Whether the key was not as expected.
    pub fn is_conflict(&self) -> bool {
        self.kind == KeyValueErrorKind::Conflict
    }
}

impl fmt::Display for KeyValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for KeyValueError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
