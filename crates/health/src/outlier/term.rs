//! How long an ejection lasts, and how that grows and goes back.

use std::time::Duration;

use tower_mesh_core::{Instant, Ratio};

/// How long ejections last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Terms {
    pub(crate) base: Duration,
    pub(crate) most: Duration,
    pub(crate) jitter: Ratio,
}

impl Terms {
    /// How long the `times`-th ejection in a row lasts; `chance` is in `[0, 1)`.
    pub(crate) fn length(&self, times: u32, chance: f64) -> Duration {
        let longest = self.base.max(self.most);
        let time = self.base.saturating_mul(times.max(1)).min(longest);
        self.jittered(time, chance)
    }

    /// The longest that any lasts.
    pub(crate) fn longest(&self) -> Duration {
        self.jittered(self.base.max(self.most), 1.0)
    }

    fn jittered(&self, time: Duration, chance: f64) -> Duration {
        // Through seconds: of a duration near the longest the product would not be one.
        let more = time.as_secs_f64() * self.jitter.get() * chance;
        time.saturating_add(Duration::try_from_secs_f64(more).unwrap_or(Duration::MAX))
    }
}

/// How often an endpoint was ejected in a row, as gRPC (A50) counts it: one more with each ejection, one less with each
/// interval that it has spent among the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    count: u32,
    /// Since when it has been among the others without a step back.
    clean_since: Instant,
}

/// Longer than any interval, so the next evaluation counts.
const LONG_AGO: Instant = Instant::from_nanos(0);

impl Default for Times {
    fn default() -> Self {
        Self {
            count: 0,
            clean_since: LONG_AGO,
        }
    }
}

impl Times {
    pub(crate) fn get(&self) -> u32 {
        self.count
    }

    pub(crate) fn ejected(&mut self) {
        self.count = self.count.saturating_add(1);
        self.clean_since = LONG_AGO;
    }

    pub(crate) fn restored(&mut self, times: u32) {
        self.count = times.max(1);
        self.clean_since = LONG_AGO;
    }

    pub(crate) fn returned(&mut self, now: Instant) {
        self.clean_since = now;
    }

    /// An evaluation finds it among the others.
    pub(crate) fn evaluated(&mut self, interval: Duration, now: Instant) {
        if now.since(self.clean_since) < interval {
            return;
        }
        self.count = self.count.saturating_sub(1);
        self.clean_since = now;
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn terms(jitter: u8) -> Terms {
        Terms {
            base: 30 * S,
            most: 300 * S,
            jitter: Ratio::percent(jitter),
        }
    }

    #[test]
    fn it_grows_by_its_base_up_to_its_most() {
        let length = |times| terms(0).length(times, 0.5).as_secs();
        assert_eq!(
            [1, 2, 3, 10, 11, u32::MAX].map(length),
            [30, 60, 90, 300, 300, 300]
        );
    }

    #[test]
    fn jitter_is_on_top_of_the_longest_too() {
        assert_eq!(terms(10).length(1, 0.5), 31 * S + S / 2);
        assert_eq!(terms(10).length(99, 0.5), 315 * S);
        assert_eq!(terms(10).longest(), 330 * S);
    }

    #[test]
    fn no_length_overflows() {
        let terms = Terms {
            base: Duration::MAX,
            most: Duration::ZERO,
            jitter: Ratio::ONE,
        };
        assert_eq!(terms.length(u32::MAX, 0.9), Duration::MAX);
    }
}
