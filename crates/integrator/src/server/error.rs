//! How serving fails.

use std::{fmt, io};

use tower_mesh_core::RegisterError;

use crate::shutdown::ShutdownError;

/// A server could not begin, or has ended, but not as it should.
#[derive(Debug)]
pub struct ServeError {
    what: What,
    cut_off: usize,
}

#[derive(Debug)]
enum What {
    Signals(io::Error),
    Register(RegisterError),
    CutOff(Option<ShutdownError>),
}

impl ServeError {
    pub(super) fn signals(error: io::Error) -> Self {
        Self {
            what: What::Signals(error),
            cut_off: 0,
        }
    }

    pub(super) fn register(error: RegisterError) -> Self {
        Self {
            what: What::Register(error),
            cut_off: 0,
        }
    }

    pub(super) fn check(cut_off: usize, ended: Result<(), ShutdownError>) -> Result<(), Self> {
        let ended = ended.err();
        if cut_off == 0 && ended.is_none() {
            return Ok(());
        }
        Err(Self {
            what: What::CutOff(ended),
            cut_off,
        })
    }

    /// Connections that were closed while requests were in flight on them.
    pub fn cut_off(&self) -> usize {
        self.cut_off
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Signals(_) => f.write_str("signals cannot be heard"),
            What::Register(_) => f.write_str("the process could not be registered"),
            What::CutOff(None) => write!(f, "{} connections were cut off", self.cut_off),
            What::CutOff(Some(ended)) => {
                write!(f, "{} connections were cut off; {ended}", self.cut_off)
            }
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.what {
            What::Signals(error) => Some(error),
            What::Register(error) => Some(error),
            What::CutOff(ended) => ended.as_ref().map(|ended| ended as _),
        }
    }
}
