//! How an endpoint that is new or back gets to its full share.

use std::time::Duration;

use tower_mesh_core::{Gate, Instant, Ratio};

/// How an endpoint that is new or back gets to its full share of the calls.
///
/// Its weight counts for `max(least, (age / window)^(1 / aggression))`: Envoy's formula, and its values but for the window,
/// which the simulation has chosen (`cargo xtask bench --balance`, "one joins"). With the default an endpoint begins at a
/// tenth, is at a half after 15 s and at all of its share after 30 s. Its latency is at first taken to be the median of its
/// peers', so what is held back are calls of all clients at once, drawn by a server whose queue is still empty.
///
/// It begins so when an update adds it to at least as many others, and when a judge (health check, ejection, breaker) lets
/// it in again. When nothing but such endpoints is at hand none of them is held back: those that are settled never get
/// more than twice their share for it. Nor is one when the others cost this client four times as much, by what it has in
/// flight itself: endpoints that hang are not waited for while another is at hand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    window: Duration,
    exponent: f32,
    least: f32,
}

impl SlowStart {
    /// All calls at once.
    pub const OFF: Self = Self::new(Duration::ZERO);

    /// A share that grows evenly over `window`.
    pub const fn new(window: Duration) -> Self {
        Self {
            window,
            exponent: 1.0,
            least: 0.1,
        }
    }

    /// Sets how much of the share comes early: with 2 a half of it after a quarter of the window, with 0.5 a quarter of it
    /// after a half. 1 unless said; what is no number or not above zero is taken for 1.
    #[must_use]
    pub fn aggression(mut self, aggression: f32) -> Self {
        let is_usable = aggression.is_normal() && aggression > 0.0;
        self.exponent = if is_usable { aggression.recip() } else { 1.0 };
        self
    }

    /// Sets the share to begin with: 10 % unless said. With much less, an endpoint among hundreds is not called at all
    /// at first, and nothing is learned of it.
    #[must_use]
    pub fn least(mut self, least: Ratio) -> Self {
        self.least = least.get() as f32;
        self
    }

    /// The part of its weight that counts, of an endpoint that has taken calls for so long; nothing if all of it does.
    pub(crate) fn part(&self, age: Duration) -> Option<f32> {
        if age >= self.window {
            return None;
        }
        let time = age.as_secs_f32() / self.window.as_secs_f32();
        Some(time.powf(self.exponent).max(self.least)).filter(|part| *part < 1.0)
    }

    /// The same of the endpoint behind `gate`; whose time is over is no longer held back from now on.
    #[cold]
    pub(crate) fn of(&self, gate: &Gate, now: Instant) -> Option<f32> {
        let part = self.part(now.since(gate.slow_since(now)?));
        if part.is_none() {
            gate.end_slow_start();
        }
        part
    }
}

/// 30 s.
impl Default for SlowStart {
    fn default() -> Self {
        Self::new(Duration::from_secs(30))
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    const MINUTE: SlowStart = SlowStart::new(Duration::from_secs(60));

    fn after(slow_start: SlowStart, seconds: u64) -> Option<f32> {
        slow_start.part(Duration::from_secs(seconds))
    }

    // scenario 16
    #[test]
    fn it_begins_at_a_tenth_and_grows_evenly() {
        assert_eq!([0, 3, 6].map(|s| after(MINUTE, s)), [Some(0.1); 3]);
        assert_eq!(after(MINUTE, 30), Some(0.5));
        assert_eq!([60, 61].map(|s| after(MINUTE, s)), [None; 2]);
        assert_eq!(after(SlowStart::OFF, 0), None);
    }

    #[test]
    fn what_comes_early_is_said_by_the_aggression() {
        let part = |aggression| after(MINUTE.aggression(aggression), 15).unwrap();
        assert!((part(2.0) - 0.5).abs() < 1e-6);
        assert!((part(1.0) - 0.25).abs() < 1e-6);
        for none in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(MINUTE.aggression(none), MINUTE, "{none}");
        }
    }

    #[test]
    fn with_nothing_held_back_there_is_nothing_to_ramp() {
        assert_eq!(after(MINUTE.least(Ratio::percent(100)), 1), None);
        assert_eq!(after(MINUTE.least(Ratio::percent(50)), 1), Some(0.5));
    }
}
