//! Shares that cannot be out of range.

use std::fmt;

/// A share between 0 and 1, both included; never NaN.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Ratio(f64);

impl Ratio {
    /// None of it.
    pub const ZERO: Self = Self(0.0);
    /// All of it.
    pub const ONE: Self = Self(1.0);

    /// Checks `share`.
    ///
    /// # Errors
    ///
    /// [`InvalidRatio`] if it is not between 0 and 1.
    pub fn new(share: f64) -> Result<Self, InvalidRatio> {
        if (0.0..=1.0).contains(&share) {
            Ok(Self(share))
        } else {
            Err(InvalidRatio(share))
        }
    }

    /// `percent` hundredths.
    ///
    /// # Panics
    ///
    /// If it is more than 100: for constants, where that is a compile error.
    pub const fn percent(percent: u8) -> Self {
        assert!(percent <= 100, "a ratio is at most 100 %");
        Self(percent as f64 / 100.0)
    }

    /// The share as a number.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Ratio {
    type Error = InvalidRatio;

    fn try_from(share: f64) -> Result<Self, InvalidRatio> {
        Self::new(share)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0 * 100.0)
    }
}

/// A number is no [`Ratio`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InvalidRatio(f64);

impl fmt::Display for InvalidRatio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is no share: it must be between 0 and 1", self.0)
    }
}

impl std::error::Error for InvalidRatio {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shares_are_ratios() {
        for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(Ratio::new(bad).is_err(), "{bad}");
        }
        assert_eq!(Ratio::new(0.3), Ok(Ratio::percent(30)));
    }
}
