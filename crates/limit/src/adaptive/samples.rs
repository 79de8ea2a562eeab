//! How long the latest attempts took.

use std::time::Duration;

use tower_mesh_core::{
    Instant,
    sync::{AtomicU64, Ordering},
};

use super::algorithm::{Latencies, Window};

const KEPT: usize = 64;

/// The latest attempts of a window, in fixed memory and without a lock.
///
/// Attempts that end while a window does may count in either, or be lost: it is a sample.
#[derive(Debug)]
pub(super) struct Samples {
    window: Window,
    /// When the window may end.
    until: AtomicU64,
    count: AtomicU64,
    nanos: [AtomicU64; KEPT],
}

impl Samples {
    pub(super) fn new(window: Window, now: Instant) -> Self {
        Self {
            window,
            until: AtomicU64::new((now + window.length).as_nanos()),
            count: AtomicU64::new(0),
            nanos: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Writes down one that ended at `now`; answers with what there is if that ends the window.
    pub(super) fn add(&self, nanos: u64, now: Instant) -> Option<Latencies> {
        let nth = self.count.fetch_add(1, Ordering::Relaxed);
        self.nanos[nth as usize % KEPT].store(nanos, Ordering::Relaxed);
        let until = self.until.load(Ordering::Relaxed);
        if nth + 1 < self.window.samples || now.as_nanos() < until {
            return None;
        }
        self.end(until, now)
    }

    #[cold]
    fn end(&self, until: u64, now: Instant) -> Option<Latencies> {
        let next = (now + self.window.length).as_nanos();
        // One of those who find that it is over ends it.
        (self.until)
            .compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed)
            .ok()?;
        let count = self.count.swap(0, Ordering::Relaxed);
        let kept = KEPT.min(count.try_into().unwrap_or(KEPT));
        let mut nanos: Vec<_> = (self.nanos[..kept].iter())
            .map(|nanos| nanos.load(Ordering::Relaxed))
            .collect();
        nanos.sort_unstable();
        let sum: u128 = nanos.iter().copied().map(u128::from).sum();
        Some(Latencies {
            mean: Duration::from_nanos((sum / kept.max(1) as u128) as u64),
            median: Duration::from_nanos(*nanos.get(kept / 2)?),
            least: Duration::from_nanos(*nanos.first()?),
        })
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1 << 60);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_window_ends_after_its_time_and_its_samples_both() {
        let window = Window {
            length: 10 * MS,
            samples: 3,
        };
        let samples = Samples::new(window, START);
        assert_eq!(samples.add(5, START + 20 * MS), None, "too few");
        assert_eq!(samples.add(1, START + 20 * MS), None);
        let ended = samples.add(3, START + 20 * MS);
        let nanos = Duration::from_nanos;
        let expected = Latencies {
            mean: nanos(3),
            median: nanos(3),
            least: nanos(1),
        };
        assert_eq!(ended, Some(expected));
        for _ in 0..100 {
            assert_eq!(samples.add(9, START + 29 * MS), None, "too early");
        }
        let ended = samples.add(9, START + 30 * MS).map(|ended| ended.least);
        assert_eq!(
            ended,
            Some(nanos(9)),
            "a new window knows nothing of the last"
        );
    }
}
