//! How many lines a flood of errors makes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tower_mesh_core::Instant;

/// So many errors a second are told one by one: enough to see what is wrong.
const A_SECOND: u64 = 10;

/// Tells the first errors of each second, and how many there were that were not told.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// Which second it is.
    second: AtomicU64,
    told: AtomicU64,
    untold: AtomicU64,
}

/// What to do with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    /// Say it, and that there were so many before it of which nothing was said.
    It {
        /// How many.
        before: u64,
    },
    /// Say nothing: it is counted.
    Nothing,
}

impl Quiet {
    pub(super) fn tell(&self, now: Instant) -> Tell {
        let second = now.as_nanos() / 1_000_000_000;
        let last = self.second.load(Relaxed);
        // Of those who find that it is over one begins the next. What counts in the wrong one is a line more or less.
        if second != last
            && self
                .second
                .compare_exchange(last, second, Relaxed, Relaxed)
                .is_ok()
        {
            self.told.store(0, Relaxed);
        }
        if self.told.fetch_add(1, Relaxed) < A_SECOND {
            let before = self.untold.swap(0, Relaxed);
            Tell::It { before }
        } else {
            self.untold.fetch_add(1, Relaxed);
            Tell::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // row 25
    #[test]
    fn of_a_flood_ten_a_second_are_told_and_how_many_were_not() {
        let quiet = Quiet::default();
        let at = |ms: u64| Instant::from_nanos((1_000_000 + ms) * 1_000_000);
        let told = |ms| {
            let tells = (0..100_000).map(|_| quiet.tell(at(ms)));
            tells.filter(|tell| *tell != Tell::Nothing).count()
        };
        assert_eq!(told(0), 10);
        assert_eq!(told(999), 0);
        assert_eq!(quiet.tell(at(1_000)), Tell::It { before: 199_990 });
        assert_eq!(quiet.tell(at(1_000)), Tell::It { before: 0 });
    }
}
