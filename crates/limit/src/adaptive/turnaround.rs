//! How long calls take, beside how long they may.

use std::time::Duration;

use tower_mesh_core::Instant;

/// Says when a higher limit would only let more calls wait for each other: when they take half as long again
/// as they did after it was lowered, and a good part of the time after which attempts run out.
///
/// As many calls come back within one turnaround as were in use at its beginning, whatever each of them took (Little's
/// law). So it is found by counting, while somebody counts anyway, and a call need not tell how long it took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turnaround {
    /// How long attempts took that ran out of time: the longest of them, since a caller may give less than others.
    patience: Duration,
    /// When the last of them was heard of.
    heard: Instant,
    /// When the turnaround under way began, and how many calls are still to come back in it.
    began: Instant,
    left: usize,
    last: Option<Duration>,
    /// The shortest since the limit was lowered.
    least: Option<Duration>,
}

/// For so long it is heeded that an attempt ran out of time. What calls took after the limit was lowered may be
/// true no more: then this is how long there is no growth, where nobody runs out of time.
const HEEDED: Duration = Duration::from_secs(10);
/// The mean as a part of the time there is. Whose mean is a third meets with a timeout now and then: some servers' queues
/// are longer than others'.
const PART: u32 = 3;

impl Turnaround {
    /// An attempt has run out of time, with so many calls in use.
    pub(super) fn ran_out(&mut self, took: Duration, in_use: usize, now: Instant) {
        if now.since(self.heard) >= HEEDED || self.patience.is_zero() {
            *self = Self {
                began: now,
                left: in_use,
                ..Self::default()
            };
        }
        // Who ran out sooner than calls take was given less than they have.
        if Some(took) >= self.last {
            (self.patience, self.heard) = (self.patience.max(took), now);
        }
    }

    /// A call has come back, of so many that were in use.
    pub(super) fn returned(&mut self, in_use: usize, now: Instant) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            let took = now.since(self.began);
            self.last = Some(took);
            self.least = Some(self.least.map_or(took, |least| least.min(took)));
            (self.began, self.left) = (now, in_use);
        }
    }

    /// The limit was lowered.
    pub(super) fn lowered(&mut self, limit: usize, now: Instant) {
        (self.began, self.left) = (now, limit);
        (self.last, self.least) = (None, None);
    }

    /// Whether calls take so long that more of them at once would run out of time.
    pub(super) fn is_long(&self, now: Instant) -> bool {
        let (Some(last), Some(least)) = (self.last, self.least) else {
            return false;
        };
        let takes = last.max(now.since(self.began));
        takes > self.patience / PART && takes > least * 3 / 2 && now.since(self.heard) < HEEDED
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(1_000_000 * ms)
    }

    /// Attempts ran out after 500 ms, and the limit was lowered to one, with which calls took 40 ms.
    fn overloaded() -> Turnaround {
        let mut this = Turnaround::default();
        this.ran_out(500 * MS, 10, at(1_000));
        this.lowered(1, at(1_000));
        this.returned(1, at(1_040));
        assert!(!this.is_long(at(1_040)));
        this
    }

    /// So many are in use, and each so many milliseconds one comes back.
    fn run(this: &mut Turnaround, in_use: usize, ms: Range<u64>, every: usize) {
        ms.step_by(every)
            .for_each(|ms| this.returned(in_use, at(ms)));
    }

    #[test]
    fn ten_calls_of_which_one_comes_back_each_20_ms_take_200_ms_which_is_a_good_part_of_500() {
        let mut this = overloaded();
        run(&mut this, 10, 1_060..2_000, 20);
        assert!(this.is_long(at(2_000)));
        run(&mut this, 5, 2_000..3_000, 20);
        assert!(!this.is_long(at(3_000)), "five of them take 100 ms");
    }

    #[test]
    fn when_no_more_come_back_it_is_as_long_as_nothing_was_heard() {
        let this = overloaded();
        assert!(!this.is_long(at(1_200)));
        assert!(this.is_long(at(1_210)));
    }

    #[test]
    fn calls_that_take_as_long_with_the_lowest_limit_do_not_wait_for_each_other() {
        let mut this = Turnaround::default();
        this.ran_out(500 * MS, 10, at(1_000));
        this.lowered(1, at(1_000));
        run(&mut this, 1, 1_400..3_000, 400);
        run(&mut this, 4, 3_000..5_000, 100);
        assert!(!this.is_long(at(5_000)));
    }

    #[test]
    fn what_calls_took_with_the_lowest_limit_is_heeded_for_ten_seconds() {
        let mut this = overloaded();
        run(&mut this, 1, 1_300..11_000, 300);
        assert!(this.is_long(at(10_999)));
        assert!(!this.is_long(at(11_000)));
        this.ran_out(500 * MS, 10, at(12_000));
        assert!(!this.is_long(at(12_500)), "it begins anew");
    }

    #[test]
    fn who_was_given_less_time_than_calls_take_says_nothing_of_how_long_they_may() {
        let mut this = overloaded();
        for ms in (2_000..20_000).step_by(200) {
            this.returned(1, at(ms));
            this.ran_out(MS, 1, at(ms));
        }
        assert!(!this.is_long(at(20_000)));
    }
}
