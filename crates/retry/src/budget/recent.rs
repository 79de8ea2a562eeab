//! What a growing count has grown by recently.

use std::time::Duration;

use tower_mesh_core::sync::{AtomicU64, AtomicUsize, Ordering};

/// In how many slices the past is remembered (Finagle's number): "the last 10 s" are the last 9 to 10 s.
const SLICES: usize = 10;

/// Nobody has come yet; no clock stands at its origin.
const NOT_BEGUN: u64 = 0;
/// A thread is about to begin a slice. That lies ahead of any time, so nobody else starts on it.
const TURNING: u64 = u64::MAX;

/// Remembers what a count that only grows was at the beginnings of the last ten slices of time.
///
/// The first who comes after the end of a slice begins the next; everybody else goes on meanwhile, nobody waits.
pub(super) struct Recent {
    slice: u64,
    /// When the present slice ends.
    end: AtomicU64,
    /// What the count was when the oldest slice began.
    base: AtomicU64,
    /// What it was when each began, and which is the oldest: only who begins a slice reads and writes these.
    beginnings: [AtomicU64; SLICES],
    oldest: AtomicUsize,
}

impl Recent {
    /// Remembers `length`.
    pub(super) fn new(length: Duration) -> Self {
        let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self {
            slice: (length / SLICES as u64).max(1),
            end: AtomicU64::new(NOT_BEGUN),
            base: AtomicU64::new(0),
            beginnings: std::array::from_fn(|_| AtomicU64::new(0)),
            oldest: AtomicUsize::new(0),
        }
    }

    /// What the count was when the oldest slice began.
    pub(super) fn base(&self) -> u64 {
        self.base.load(Ordering::Relaxed)
    }

    /// Whether the present slice has ended.
    #[inline]
    pub(super) fn is_over(&self, now: u64) -> bool {
        now >= self.end.load(Ordering::Relaxed)
    }

    /// Begins the slice that `now` lies in, unless it has begun or another thread is at it; `count` reads the count.
    pub(super) fn turn(&self, now: u64, count: impl FnOnce() -> u64) {
        let end = self.end.load(Ordering::Relaxed);
        let claimed = now >= end
            && self
                .end
                .compare_exchange(end, TURNING, Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        if claimed {
            let next = if end == NOT_BEGUN {
                now.saturating_add(self.slice)
            } else {
                let begun = (now - end) / self.slice + 1;
                self.begin(begun, count());
                end.saturating_add(begun.saturating_mul(self.slice))
            };
            self.end.store(next, Ordering::Release);
        }
    }

    /// Begins `slices`, all of them at `count`: while nobody came it did not grow.
    fn begin(&self, slices: u64, count: u64) {
        let slices = slices.min(SLICES as u64) as usize;
        let oldest = self.oldest.load(Ordering::Relaxed);
        for slice in 0..slices {
            self.beginnings[(oldest + slice) % SLICES].store(count, Ordering::Relaxed);
        }
        let oldest = (oldest + slices) % SLICES;
        self.oldest.store(oldest, Ordering::Relaxed);
        let base = self.beginnings[oldest].load(Ordering::Relaxed);
        self.base.store(base, Ordering::Relaxed);
    }
}
