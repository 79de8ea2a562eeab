//! One source of time for a whole mesh: the clock and its timers, injected together.

mod clock;
mod manual;
mod queue;
mod sleep;

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

pub(crate) use self::clock::Source;
pub use self::{clock::Clock, manual::ManualClock, queue::TimerDriver, sleep::Sleep};

/// A point in time of one [`Clock`], in nanoseconds.
///
/// It fits an atomic, and its arithmetic saturates: no input makes it panic or wrap. Instants of different clocks do
/// not compare.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// A point that is never reached.
    pub const NEVER: Self = Self(u64::MAX);

    /// The point `nanos` nanoseconds after the clock's origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time since `earlier`, or zero if that lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(nanos(rhs)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(rhs)))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NEVER => f.write_str("never"),
            Self(nanos) => write!(f, "{:?}", Duration::from_nanos(nanos)),
        }
    }
}

/// A duration in whole nanoseconds; the 584 years that do not fit are cut off.
pub(crate) fn nanos(duration: Duration) -> u64 {
    // A third of what 128 bits cost.
    let whole = duration.as_secs().saturating_mul(1_000_000_000);
    whole.saturating_add(duration.subsec_nanos().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        let now = Instant::from_nanos(5);
        assert_eq!(now + Duration::MAX, Instant::NEVER);
        assert_eq!(now - Duration::MAX, Instant::from_nanos(0));
        assert_eq!(now.since(Instant::NEVER), Duration::ZERO);
    }
}
