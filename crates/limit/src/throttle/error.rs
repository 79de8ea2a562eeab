//! The refusal of a throttle.

use std::{error::Error, fmt};

use tower_mesh_core::{Kind, Refusal};

/// So few of the latest calls were accepted that this one was not made.
///
/// The inner service has not seen the request. The [`Refusal`] of kind [`Kind::Overloaded`] is its `source()`.
#[derive(Clone, Debug)]
pub struct Throttled {
    share: f64,
    refusal: Refusal,
}

impl Throttled {
    pub(super) fn new(requests: u64, accepts: u64, share: f64) -> Self {
        let context = format!(
            "of the latest {requests} calls {accepts} were accepted, so {:.0} % are not made",
            share * 100.0
        );
        Self {
            share,
            refusal: Refusal::local(Kind::Overloaded).with_context(context),
        }
    }

    /// The share of calls that is refused at present, 0 to 1.
    pub fn share(&self) -> f64 {
        self.share
    }
}

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)
    }
}

impl Error for Throttled {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.refusal)
    }
}
