//! What is measured, and what it has to be.

use std::fmt;

/// A figure with its bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it is, and under which conditions.
    pub what: String,
    /// The figure.
    pub value: f64,
    /// What it has to be.
    pub bar: Bar,
}

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

impl Bar {
    /// Whether `value` is good enough; what is no number is not.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl Figure {
    pub(super) fn at_most(what: impl Into<String>, most: f64, value: f64) -> Self {
        let (what, bar) = (what.into(), Bar::AtMost(most));
        Self { what, value, bar }
    }

    pub(super) fn at_least(what: impl Into<String>, least: f64, value: f64) -> Self {
        let (what, bar) = (what.into(), Bar::AtLeast(least));
        Self { what, value, bar }
    }

    /// Whether it is good enough.
    pub fn holds(&self) -> bool {
        self.bar.holds(self.value)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (which, bar) = match self.bar {
            Bar::AtMost(bar) => ("at most", bar),
            Bar::AtLeast(bar) => ("at least", bar),
        };
        write!(f, "{}: {:.4}, {which} {bar}", self.what, self.value)
    }
}
