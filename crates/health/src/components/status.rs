//! What a component says of itself.

use std::{fmt, sync::Arc};

use crate::text::bounded;

/// How a component is, or all of them together; a worse one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// It does all it should.
    Healthy,
    /// It does less than it should, or slower.
    Degraded,
    /// It does not do what it should.
    Unhealthy,
}

impl Status {
    /// The word for it in logs, labels and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a process can do its work without a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Criticality {
    /// It cannot: it is not ready while the component is unhealthy.
    Critical,
    /// It can, if worse: at worst it is degraded.
    Optional,
}

impl Criticality {
    /// What a component of this kind that is in `status` means for all of them together.
    pub(crate) fn weigh(self, status: Status) -> Status {
        match self {
            Self::Critical => status,
            Self::Optional => status.min(Status::Degraded),
        }
    }
}

/// What a check of a component answers, or who pushes says: a status, and why it is no better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub(crate) status: Status,
    pub(crate) error: Option<Arc<str>>,
}

impl Report {
    /// It does all it should.
    pub const fn healthy() -> Self {
        Self {
            status: Status::Healthy,
            error: None,
        }
    }

    /// It does less than it should, for this reason; cut to 256 bytes.
    pub fn degraded(why: &str) -> Self {
        Self {
            status: Status::Degraded,
            error: Some(bounded(why)),
        }
    }

    /// It does not do what it should, for this reason; cut to 256 bytes.
    pub fn unhealthy(why: &str) -> Self {
        Self {
            status: Status::Unhealthy,
            error: Some(bounded(why)),
        }
    }
}

/// For checks that have no more to say than that all is well.
impl From<()> for Report {
    fn from((): ()) -> Self {
        Self::healthy()
    }
}
