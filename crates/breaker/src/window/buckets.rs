//! A window of time: ten buckets, each one atomic word.

use std::time::Duration;

use tower_mesh_core::{
    Instant,
    sync::{AtomicU64, Ordering},
};

use super::Tally;

/// Counts the calls of the latest time in fixed memory, with one compare-exchange a call.
///
/// A bucket holds a tenth of the time: its calls, how many of them counted against, and the stamp that says which tenth
/// and which epoch they belong to. All three change as one, so a bucket is never half rotated, and a call that ends
/// late counts where it belongs or not at all.
///
/// What is counted is exact but for two bounds: the window reaches back between nine and ten tenths, and a bucket of
/// more than 65,535 calls halves both numbers and goes on, so that its rate stays and its latest calls weigh more.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// Tenths in a nanosecond, in 2^-64: a multiplication instead of a division, which would be half of what a record
    /// costs. It makes them longer by less than a millionth.
    per_nano: u64,
    slots: [AtomicU64; SLOTS],
}

/// How many buckets a window has.
const BUCKETS: u32 = 10;

/// How many are kept: a power of two, so that finding one is no division either.
const SLOTS: usize = 16;

/// Stamps rise with time and, by more than a whole window, with each epoch. So within one bucket the greater stamp is
/// always the later one, and no stamp of an old epoch lies in the window of a new one.
const EPOCH: u32 = 64;

/// A bucket whose stamp is ahead by no more than this belongs to a later time or epoch; the record came late. What is
/// further ahead has been left there before the stamps wrapped.
const LATE: u32 = 4_096;

impl Buckets {
    /// However many calls are made, this many of a bucket's are counted.
    pub(crate) const SURELY_COUNTED: u32 = u16::MAX as u32 / 2;

    pub(crate) fn new(time: Duration) -> Self {
        let width = u64::try_from(time.as_nanos() / u128::from(BUCKETS)).unwrap_or(u64::MAX);
        Self {
            per_nano: u64::MAX / width.max(1),
            slots: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    #[inline]
    pub(crate) fn record(&self, against: bool, epoch: u32, now: Instant) {
        let stamp = self.stamp(epoch, now);
        let slot = &self.slots[stamp as usize % SLOTS];
        let call = Bucket::ONE + u64::from(against);
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            // Of this stamp, and with fewer calls than it can hold: as calls stand above what counts against.
            let has_room = word.wrapping_sub(u64::from(stamp) << 32) < Bucket::FULL;
            let word = if has_room {
                word
            } else {
                Bucket::make_room(word, stamp)?
            };
            Some(word + call)
        });
    }

    pub(crate) fn tally(&self, epoch: u32, now: Instant) -> Tally {
        let newest = self.stamp(epoch, now);
        let mut tally = Tally::default();
        for slot in &self.slots {
            let bucket = Bucket::unpack(slot.load(Ordering::Relaxed));
            if newest.wrapping_sub(bucket.stamp) < BUCKETS {
                tally.calls += u32::from(bucket.calls);
                tally.against += u32::from(bucket.against);
            }
        }
        tally
    }

    fn stamp(&self, epoch: u32, now: Instant) -> u32 {
        let tenth = (u128::from(now.as_nanos()) * u128::from(self.per_nano)) >> 64;
        (tenth as u32).wrapping_add(epoch.wrapping_mul(EPOCH))
    }
}

/// What is in a bucket's word, the first uppermost.
struct Bucket {
    stamp: u32,
    calls: u16,
    against: u16,
}

impl Bucket {
    /// One call.
    const ONE: u64 = 1 << 16;
    /// As many calls as it can hold.
    const FULL: u64 = Self::ONE * u16::MAX as u64;

    fn unpack(word: u64) -> Self {
        Self {
            stamp: (word >> 32) as u32,
            calls: (word >> 16) as u16,
            against: word as u16,
        }
    }

    fn pack(&self) -> u64 {
        u64::from(self.stamp) << 32 | u64::from(self.calls) << 16 | u64::from(self.against)
    }

    /// Room for a call at `stamp`: the bucket is halved if it is full, emptied if it is older than the call, and left
    /// alone if it is newer.
    #[cold]
    fn make_room(word: u64, stamp: u32) -> Option<u64> {
        let bucket = Self::unpack(word);
        let (against, calls) = match bucket.stamp.wrapping_sub(stamp) {
            0 => (bucket.against / 2, bucket.calls / 2),
            1..=LATE => return None,
            _ => (0, 0),
        };
        let bucket = Self {
            stamp,
            against,
            calls,
        };
        Some(bucket.pack())
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const START: Instant = Instant::from_nanos(1_200_000_000 * 1_000_000_000);

    fn window() -> Buckets {
        Buckets::new(10 * S)
    }

    fn tally(window: &Buckets, epoch: u32, now: Instant) -> (u32, u32) {
        let tally = window.tally(epoch, now);
        (tally.calls, tally.against)
    }

    #[test]
    fn calls_leave_the_window_a_tenth_at_a_time() {
        let window = window();
        for second in 0..10 {
            window.record(second < 5, 0, START + second * S);
        }
        let at = |second: u32| tally(&window, 0, START + second * S);
        assert_eq!(at(9), (10, 5));
        assert_eq!(at(10), (9, 4));
        assert_eq!(at(14), (5, 0));
        assert_eq!(at(19), (0, 0));
    }

    #[test]
    fn a_busy_bucket_keeps_its_rate() {
        let window = window();
        for call in 0..1_000_000 {
            window.record(call % 4 == 0, 0, START);
        }
        let (calls, against) = tally(&window, 0, START);
        assert!(calls >= Buckets::SURELY_COUNTED, "{calls}");
        let rate = f64::from(against) / f64::from(calls);
        assert!((rate - 0.25).abs() < 0.001, "{rate}");
    }

    #[test]
    fn a_new_epoch_starts_cold_and_an_old_one_cannot_reach_it() {
        let window = window();
        window.record(true, 1, START);
        assert_eq!(tally(&window, 2, START), (0, 0));
        window.record(false, 2, START);
        for second in 0..10 {
            window.record(true, 1, START + second * S);
        }
        assert_eq!(tally(&window, 2, START + 9 * S), (1, 0));
    }

    #[test]
    fn a_call_that_comes_late_disturbs_nothing() {
        let window = window();
        window.record(true, 0, START + 10 * S);
        window.record(true, 0, START);
        assert_eq!(tally(&window, 0, START + 10 * S), (1, 1));
        window.record(true, 0, START + 9 * S);
        assert_eq!(tally(&window, 0, START + 10 * S), (2, 2));
    }

    #[test]
    fn a_clock_that_stands_still_or_jumps_a_year_only_fills_or_empties_the_window() {
        let window = Buckets::new(Duration::from_millis(10));
        for _ in 0..100 {
            window.record(true, 0, START);
        }
        assert_eq!(tally(&window, 0, START), (100, 100));
        let mut now = START;
        for _ in 0..100 {
            now = now + 365 * 24 * 3600 * S;
            assert_eq!(tally(&window, 0, now), (0, 0));
            window.record(true, 0, now);
            assert_eq!(tally(&window, 0, now), (1, 1));
        }
    }
}
