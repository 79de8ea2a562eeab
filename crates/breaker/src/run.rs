//! Failures in a row.

use tower_mesh_core::{
    Class, Outcome,
    sync::{AtomicU64, Ordering},
};

use crate::epoch;

/// Counts failures in a row within one epoch: the epoch in the upper half of the word, the count in the lower.
///
/// A healthy call only reads it.
#[derive(Debug, Default)]
pub(crate) struct Run(AtomicU64);

impl Run {
    /// Counts a call, and says how many failures in a row there are now.
    pub(crate) fn record(&self, outcome: Outcome, epoch: u32) -> u32 {
        match outcome.class() {
            Class::Success => self.end(epoch),
            // "Not so much" comes from an endpoint that is alive; it counts in the rate alone, as in linkerd.
            Class::Overload => 0,
            _ => self.update(epoch, |length| length.saturating_add(1)),
        }
    }

    #[inline]
    pub(crate) fn end(&self, epoch: u32) -> u32 {
        // Of whatever epoch it is: most words count nothing, and one look is all that a healthy call takes.
        if self.0.load(Ordering::Relaxed) as u32 != 0 {
            self.update(epoch, |_| 0);
        }
        0
    }

    #[cold]
    fn update(&self, epoch: u32, change: impl Fn(u32) -> u32) -> u32 {
        let mut length = 0;
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                length = change(epoch::half_for(epoch, word)?);
                Some(epoch::pack(epoch, length))
            });
        length
    }

    pub(crate) fn length(&self, epoch: u32) -> u32 {
        epoch::half_in(epoch, self.0.load(Ordering::Relaxed))
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_failures_lengthen_it_and_only_successes_end_it() {
        let run = Run::default();
        let record = |outcome| {
            run.record(outcome, 0);
            run.length(0)
        };
        assert_eq!(record(Outcome::failure()), 1);
        assert_eq!(record(Outcome::timeout()), 2);
        assert_eq!(record(Outcome::overload()), 2);
        assert_eq!(record(Outcome::failure()), 3);
        assert_eq!(record(Outcome::success()), 0);
    }

    #[test]
    fn an_old_epoch_neither_lengthens_nor_ends_the_run_of_a_new_one() {
        let run = Run::default();
        run.record(Outcome::failure(), 0);
        assert_eq!(run.record(Outcome::failure(), 1), 1);
        assert_eq!(run.record(Outcome::failure(), 0), 0);
        run.record(Outcome::success(), 0);
        assert_eq!(run.length(1), 1);
    }
}
