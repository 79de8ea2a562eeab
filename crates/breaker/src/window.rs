//! Rates: what share of the latest calls counted against whoever is judged.

mod buckets;
mod calls;

use std::{num::NonZeroU16, time::Duration};

use tower_mesh_core::{Instant, Ratio};

pub(crate) use self::{buckets::Buckets, calls::LastCalls};

/// The calls over which rates are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(Span);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Span {
    Calls(NonZeroU16),
    Time(Duration),
}

impl Window {
    /// The last `calls` calls, however long ago they were.
    ///
    /// It slides: each call pushes out the one that ended `calls` calls ago. It takes a quarter of a byte a call.
    pub const fn last(calls: NonZeroU16) -> Self {
        Self(Span::Calls(calls))
    }

    /// The calls of the last `time`, which moves on in tenths; 10 ms to 24 h, what is outside is cut off.
    ///
    /// It takes 136 bytes, however many calls there are.
    pub fn over(time: Duration) -> Self {
        const LEAST: Duration = Duration::from_millis(10);
        const MOST: Duration = Duration::from_secs(24 * 3600);
        Self(Span::Time(time.clamp(LEAST, MOST)))
    }
}

/// How many calls are in a window, and how many of them counted against whoever is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Tally {
    /// All calls.
    pub calls: u32,
    /// Those that counted against it.
    pub against: u32,
}

impl Tally {
    /// The share that counted against it, if there was any call.
    pub fn rate(&self) -> Option<f64> {
        (self.calls > 0).then(|| f64::from(self.against) / f64::from(self.calls))
    }
}

/// The calls in a window. Of how many what share may not be reached is asked each time anew: that may change, the window
/// may not.
#[derive(Debug)]
pub(crate) struct Counted {
    ring: Ring,
    most: u32,
}

/// A share that the calls in a window may not reach, once there are so many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) min_calls: u32,
    pub(crate) share: Share,
}

/// Both count per epoch: what is recorded under an older one neither shows nor disturbs, and a new one starts cold
/// without a single write.
#[derive(Debug)]
enum Ring {
    Time(Buckets),
    Calls(LastCalls),
}

impl Counted {
    pub(crate) fn new(window: Window) -> Self {
        let (ring, most) = match window.0 {
            Span::Calls(calls) => (Ring::Calls(LastCalls::new(calls)), calls.get().into()),
            Span::Time(time) => (Ring::Time(Buckets::new(time)), Buckets::SURELY_COUNTED),
        };
        Self { ring, most }
    }

    #[inline]
    pub(crate) fn record(&self, against: bool, epoch: u32, now: Instant) {
        match &self.ring {
            Ring::Time(buckets) => buckets.record(against, epoch, now),
            Ring::Calls(calls) => calls.record(against, epoch),
        }
    }

    /// Whether too many of the calls counted against. It is looked at after one that did: no other breaks it.
    ///
    /// Calls that end at the same instant on several processors may not see each other; then the next one that counts
    /// against breaks the rule.
    pub(crate) fn breaks(&self, rule: Rule, epoch: u32, now: Instant) -> bool {
        let tally = self.tally(epoch, now);
        let min_calls = rule.min_calls.min(self.most);
        tally.calls >= min_calls && rule.share.is_reached(tally.against, tally.calls)
    }

    pub(crate) fn tally(&self, epoch: u32, now: Instant) -> Tally {
        match &self.ring {
            Ring::Calls(calls) => calls.tally(epoch),
            Ring::Time(buckets) => buckets.tally(epoch, now),
        }
    }
}

/// A share in billionths: 7 of 100 reach 7 %, which they do not in binary fractions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share(u64);

const WHOLE: f64 = 1e9;

impl Share {
    pub(crate) fn new(ratio: Ratio) -> Self {
        Self((ratio.get() * WHOLE).round() as u64)
    }

    pub(crate) fn is_reached(self, part: u32, whole: u32) -> bool {
        u64::from(part) * WHOLE as u64 >= self.0 * u64::from(whole)
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1 << 60);

    fn half_of(min_calls: u32) -> Rule {
        let share = Share::new(Ratio::percent(50));
        Rule { min_calls, share }
    }

    #[test]
    fn shares_are_exact_where_binary_fractions_are_not() {
        let (hundred, seven_percent) = (100.0, Ratio::percent(7).get());
        assert!(hundred * seven_percent > 7.0, "else a float would do");
        for percent in 1..=100u8 {
            let share = Share::new(Ratio::percent(percent));
            assert!(share.is_reached(percent.into(), 100));
            assert!(!share.is_reached(u32::from(percent) - 1, 100));
        }
    }

    fn breaks(calls: &Counted, min_calls: u32, now: Instant) -> bool {
        calls.record(true, 0, now);
        calls.breaks(half_of(min_calls), 0, now)
    }

    #[test]
    fn a_minimum_that_the_window_cannot_hold_is_cut_off() {
        let four = NonZeroU16::MIN.saturating_add(3);
        let calls = Counted::new(Window::last(four));
        let broken: Vec<_> = (0..4).map(|_| breaks(&calls, 1_000, NOW)).collect();
        assert_eq!(broken, [false, false, false, true]);
    }

    #[test]
    fn absurd_windows_are_cut_off() {
        for time in [Duration::ZERO, Duration::MAX] {
            let calls = Counted::new(Window::over(time));
            assert!(breaks(&calls, 1, NOW));
            assert!(breaks(&calls, 1, Instant::NEVER));
        }
    }
}
