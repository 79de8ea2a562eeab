//! What a server says of its own load.

use std::time::Duration;

/// What a server says of its own load along with a response: a client sees only the calls that it makes itself, the server
/// those of all its clients.
///
/// It is taken as a hint. Whatever is in it, a [`Load`](crate::Load) keeps one finite number of it, forgets it within a
/// second, and who reads it believes it only within bounds of what was measured ([`Load::latency_with_report`]).
///
/// [`Load::latency_with_report`]: crate::Load::latency_with_report
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    in_flight: u32,
    each: Duration,
    failing: f32,
}

/// No call is expected to take longer, whatever a server says.
const LONGEST_US: f32 = 3600e6;

/// The least share of successes reckoned with.
const LEAST_SUCCESS: f32 = 0.05;

impl Report {
    /// So many calls are being served, and the server needs so long for `each` of those that it has at once: the mean time
    /// that a call is there, divided by the mean number of calls that are.
    pub const fn new(in_flight: u32, each: Duration) -> Self {
        Self {
            in_flight,
            each,
            failing: 0.0,
        }
    }

    /// Sets the share of its calls that have failed lately: none unless said. What is no share is none.
    #[must_use]
    pub fn with_failing(mut self, share: f32) -> Self {
        // NaN is no share either.
        self.failing = if (0.0..=1.0).contains(&share) {
            share
        } else {
            0.0
        };
        self
    }

    /// Calls that are being served.
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// The time that the server needs for each of the calls that it has at once.
    pub const fn each(&self) -> Duration {
        self.each
    }

    /// The share of its calls that have failed lately.
    pub const fn failing(&self) -> f32 {
        self.failing
    }

    /// How long a call would be there that came now, until it succeeds, in microseconds; nothing if the server cannot tell.
    pub(crate) fn expected_us(&self) -> Option<f32> {
        let each = self.each.as_nanos() as f32 / 1e3;
        let success = (1.0 - self.failing).max(LEAST_SUCCESS);
        let expected = each * (self.in_flight as f32 + 1.0) / success;
        (expected > 0.0).then(|| expected.min(LONGEST_US))
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_call_that_comes_now_waits_for_those_that_are_there() {
        assert_eq!(Report::new(0, MS).expected_us(), Some(1_000.0));
        assert_eq!(Report::new(9, MS).expected_us(), Some(10_000.0));
        let failing = Report::new(9, MS).with_failing(0.5);
        assert_eq!(
            failing.expected_us(),
            Some(20_000.0),
            "every other is for nothing"
        );
    }

    // row 34
    #[test]
    fn whatever_a_server_says_is_nothing_or_a_finite_number() {
        assert_eq!(Report::new(7, Duration::ZERO).expected_us(), None);
        let most = Report::new(u32::MAX, Duration::MAX).with_failing(1.0);
        assert_eq!(most.expected_us(), Some(LONGEST_US));
        for none in [f32::NAN, -0.1, 1.1, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(
                Report::new(0, MS).with_failing(none).failing(),
                0.0,
                "{none}"
            );
        }
    }
}
