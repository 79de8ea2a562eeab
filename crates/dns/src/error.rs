//! What cannot be asked.

use std::{error::Error, fmt};

use tower_mesh_core::BoxError;

/// DNS cannot be asked so: no server is known, or what is to be asked for is no name.
#[derive(Debug)]
pub struct DnsError {
    message: String,
    source: Option<BoxError>,
}

impl DnsError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source: None,
        }
    }

    pub(crate) fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for DnsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
