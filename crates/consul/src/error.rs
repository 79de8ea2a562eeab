//! What Consul could not do.

use std::{error::Error, fmt};

use tower_mesh_core::BoxError;

/// Consul could not do what it was asked; from `source()` of what core's traits return.
#[derive(Debug)]
pub struct ConsulError {
    kind: ErrorKind,
    message: String,
    source: Option<BoxError>,
}

/// Why Consul could not do what it was asked, and so what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The token lacks a permission, which the message names.
    Denied,
    /// No agent can be reached, or none can answer now: try again later.
    Unavailable,
    /// The answer is not one of Consul's.
    Malformed,
    /// The answer is larger than is allowed.
    TooLarge,
    /// Consul does not take this: trying again changes nothing.
    Refused,
    /// The agent does not prove that it is one, or does not take who we are. It was told nothing but names, in the first
    /// case.
    Untrusted(Distrust),
}

/// What is wrong with a certificate, and so what to do about it; only of agents at `https://` addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Distrust {
    /// The agent's is for another name than that of its address.
    Name,
    /// The agent's has expired.
    Expired,
    /// The agent's is not valid yet; or the clock of this machine is slow.
    NotYetValid,
    /// The agent's was signed by an authority that is not believed.
    Authority,
    /// The agent has none, or one that is no good for another reason, which the error's source tells.
    Invalid,
    /// The agent wants a certificate of ours, or does not take the one it has got.
    Client,
}

/// More than this of a message is somebody else's text.
const TEXT: usize = 200;

impl ConsulError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// The token lacks `needs`; `said` is how Consul put it.
    pub(crate) fn denied(needs: &str, said: &str) -> Self {
        let message = format!("access is denied, the token needs {needs}: {said}");
        Self::new(ErrorKind::Denied, message)
    }

    /// An answer lacks what may only be read with `needs`.
    pub(crate) fn filtered(needs: &str) -> Self {
        let message = format!("access is denied to a part of the answer, the token needs {needs}");
        Self::new(ErrorKind::Denied, message)
    }

    /// An answer names more than `most` endpoints.
    pub(crate) fn too_many(named: usize, most: usize) -> Self {
        let message =
            format!("the answer names {named} endpoints, more than the {most} that are allowed");
        Self::new(ErrorKind::TooLarge, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Malformed, message)
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, message)
    }

    pub(crate) fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same, caused by `source` unless it is known already.
    #[cfg(feature = "tls")]
    pub(crate) fn or_caused_by(self, source: Self) -> Self {
        match self.source {
            Some(_) => self,
            None => self.caused_by(source),
        }
    }

    /// Why, and so what to do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// The beginning of a text from outside, on one line.
pub(crate) fn quoted(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * TEXT)]);
    let clean = text.trim().chars().map(|c| match c.is_control() {
        true => ' ',
        false => c,
    });
    clean.take(TEXT).collect()
}

impl fmt::Display for ConsulError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ConsulError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
