//! How many calls were asked for lately, how many of them were accepted, and what follows from that.

use std::time::Duration;

use tower_mesh_core::{
    Instant,
    sync::{AtomicU64, Ordering},
};

/// In how many slices the past is remembered: "the last two minutes" are the last 110 to 120 seconds.
const SLICES: u64 = 12;

/// Requests and accepts of the latest time in fixed memory, with one compare-exchange each.
///
/// A slice is one word: its stamp (16 bits), requests and accepts (24 bits each, which saturate).
#[derive(Debug)]
pub(super) struct Counts {
    slice: u64,
    slices: [AtomicU64; SLICES as usize],
}

const MOST: u64 = (1 << 24) - 1;

/// What is counted.
#[derive(Clone, Copy)]
pub(super) enum Count {
    Request,
    Accept,
}

impl Counts {
    pub(super) fn new(window: Duration) -> Self {
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        Self {
            slice: (window / SLICES).max(1),
            slices: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    pub(super) fn add(&self, count: Count, now: Instant) {
        let (stamp, index) = self.place(now);
        let _ = self.slices[index].fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let (requests, accepts) = if word >> 48 == stamp {
                unpack(word)
            } else {
                (0, 0)
            };
            Some(match count {
                Count::Request => pack(stamp, (requests + 1).min(MOST), accepts),
                Count::Accept => pack(stamp, requests, (accepts + 1).min(MOST)),
            })
        });
    }

    /// Requests and accepts in the window that ends at `now`.
    pub(super) fn sum(&self, now: Instant) -> (u64, u64) {
        let newest = now.as_nanos() / self.slice;
        let mut sum = (0, 0);
        for slice in &self.slices {
            let word = slice.load(Ordering::Relaxed);
            // Stamps are 16 bits of the slice's number: what was left there 65,536 slices ago would look new.
            let age = (newest as u16).wrapping_sub((word >> 48) as u16);
            if u64::from(age) < SLICES {
                let (requests, accepts) = unpack(word);
                sum = (sum.0 + requests, sum.1 + accepts);
            }
        }
        sum
    }

    fn place(&self, now: Instant) -> (u64, usize) {
        let number = now.as_nanos() / self.slice;
        (number & 0xffff, (number % SLICES) as usize)
    }
}

const fn unpack(word: u64) -> (u64, u64) {
    (word >> 24 & MOST, word & MOST)
}

const fn pack(stamp: u64, requests: u64, accepts: u64) -> u64 {
    stamp << 48 | requests << 24 | accepts
}

/// The share of calls that is refused here, when so many of the latest were accepted: nothing as long as fewer than
/// `headroom` times as many are asked for as are accepted (Google SRE, "Handling overload").
pub(super) fn refused_share(requests: u64, accepts: u64, headroom: f64) -> f64 {
    let (requests, accepts) = (requests as f64, accepts as f64);
    ((requests - headroom * accepts) / (requests + 1.0)).max(0.0)
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1 << 60);
    const MINUTE: Duration = Duration::from_secs(60);

    // scenario 22
    #[test]
    fn a_quarter_accepted_refuses_half_and_half_accepted_refuses_nothing() {
        let share = refused_share(100, 25, 2.0);
        assert!((share - 0.495).abs() < 0.001, "{share}");
        assert_eq!(refused_share(100, 50, 2.0), 0.0);
        assert_eq!(refused_share(0, 0, 2.0), 0.0);
        assert!(refused_share(u64::MAX, 0, 2.0) <= 1.0);
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let counts = Counts::new(2 * MINUTE);
        for i in 0..10 {
            counts.add(Count::Request, START + i * Duration::from_secs(1));
        }
        counts.add(Count::Accept, START);
        assert_eq!(counts.sum(START + MINUTE), (10, 1));
        assert_eq!(counts.sum(START + 3 * MINUTE), (0, 0));
        counts.add(Count::Request, START + 3 * MINUTE);
        assert_eq!(counts.sum(START + 3 * MINUTE), (1, 0));
    }

    #[test]
    fn counts_saturate_and_do_not_run_into_each_other() {
        let counts = Counts::new(Duration::ZERO);
        assert_eq!(unpack(pack(7, MOST, MOST)), (MOST, MOST));
        counts.slices[counts.place(START).1]
            .store(pack(counts.place(START).0, MOST, 3), Ordering::Relaxed);
        counts.add(Count::Request, START);
        assert_eq!(counts.sum(START), (MOST, 3));
    }
}
