//! What goes wrong by itself, again and again.

use std::time::Duration;

/// Neighbours that take a part of a server's speed now and then, each server's by itself.
///
/// A new state is drawn for a server after an exponentially distributed time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Antagonists {
    pub(crate) share: f64,
    pub(crate) speed: f64,
    pub(crate) every: Duration,
}

impl Antagonists {
    /// As bad as the default; the setters say how bad they are.
    pub fn new() -> Self {
        Self::default()
    }

    /// The share of time for which they are there.
    ///
    /// # Panics
    ///
    /// If that is not 0 to 1.
    #[must_use]
    pub fn share(mut self, share: f64) -> Self {
        assert!((0.0..=1.0).contains(&share), "a share is 0 to 1");
        self.share = share;
        self
    }

    /// How fast a server is meanwhile, as a share of its own speed.
    ///
    /// # Panics
    ///
    /// If that is not above 0, or above 1.
    #[must_use]
    pub fn speed(mut self, speed: f64) -> Self {
        assert!(speed > 0.0 && speed <= 1.0, "above 0, and at most 1");
        self.speed = speed;
        self
    }

    /// How long it takes until the next draw, in the mean.
    ///
    /// # Panics
    ///
    /// If that is zero.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        assert!(!every.is_zero(), "time has to pass");
        self.every = every;
        self
    }

    /// What they leave of the speed, in the long run.
    pub(crate) fn leave(&self) -> f64 {
        1.0 - self.share * (1.0 - self.speed)
    }
}

impl Default for Antagonists {
    /// Half of the speed for 30 % of the time, drawn anew every 500 ms.
    fn default() -> Self {
        Self {
            share: 0.3,
            speed: 0.5,
            every: Duration::from_millis(500),
        }
    }
}

/// Servers that stand still for a while, one after the other, as for a garbage collection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pauses {
    pub(crate) length: Duration,
    pub(crate) every: Duration,
}

impl Pauses {
    /// Every so often some server stands still for `length`; each time one is drawn.
    ///
    /// # Panics
    ///
    /// If `every` is zero.
    pub fn new(length: Duration, every: Duration) -> Self {
        assert!(!every.is_zero(), "time has to pass");
        Self { length, every }
    }
}

impl Default for Pauses {
    /// 500 ms every 5 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_secs(5))
    }
}
