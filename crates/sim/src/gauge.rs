//! A level over time.

use std::time::Duration;

use tower_mesh_core::Instant;

/// How many there are, how many there were at most, and in the mean over time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gauge {
    level: usize,
    peak: usize,
    /// Level times nanoseconds, up to `until`.
    area: u128,
    since: Instant,
    until: Instant,
}

impl Gauge {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            until: now,
            ..Self::default()
        }
    }

    pub(crate) fn level(&self) -> usize {
        self.level
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak
    }

    pub(crate) fn add(&mut self, now: Instant) {
        self.settle(now);
        self.level += 1;
        self.peak = self.peak.max(self.level);
    }

    pub(crate) fn remove(&mut self, now: Instant) {
        self.settle(now);
        self.level -= 1;
    }

    /// Forgets what was; what is there stays.
    pub(crate) fn reset(&mut self, now: Instant) {
        *self = Self {
            level: self.level,
            peak: self.level,
            ..Self::new(now)
        };
    }

    /// The mean level since the last reset.
    pub(crate) fn mean(&self, now: Instant) -> f64 {
        let time = now.since(self.since);
        if time.is_zero() {
            return self.level as f64;
        }
        let mut settled = *self;
        settled.settle(now);
        settled.area as f64 / time.as_nanos() as f64
    }

    fn settle(&mut self, now: Instant) {
        let time: Duration = now.since(self.until);
        self.area += self.level as u128 * time.as_nanos();
        self.until = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_over_time_and_the_peak_is_the_highest_since_the_reset() {
        let at = Instant::from_nanos;
        let mut gauge = Gauge::new(at(0));
        gauge.add(at(0));
        gauge.add(at(5));
        gauge.add(at(5));
        gauge.remove(at(10));
        gauge.remove(at(10));
        assert_eq!((gauge.mean(at(20)), gauge.peak()), (1.5, 3));
        gauge.reset(at(20));
        gauge.add(at(30));
        assert_eq!((gauge.mean(at(40)), gauge.peak()), (1.5, 2));
    }
}
