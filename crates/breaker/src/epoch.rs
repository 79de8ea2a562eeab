//! State that belongs to an epoch.
//!
//! Each transition of a breaker begins an epoch. What is counted or noted under one carries its number in the same
//! atomic word, so that nothing has to be cleared when the next begins, and nobody who comes late from an old one can
//! write into it: there is no moment between a check and a write.

use std::time::Duration;

use tower_mesh_core::{
    Instant,
    sync::{AtomicU64, Ordering},
};

/// Whether epoch `a` came before `b`. They wrap: the earlier is less than half the circle behind.
fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// A word of the epoch (upper half) and what was noted under it.
pub(crate) fn pack(epoch: u32, half: u32) -> u64 {
    u64::from(epoch) << 32 | u64::from(half)
}

/// What a record of `epoch` finds in `word`: nothing yet if that is of an older epoch, and `None` if it is of a newer
/// one, so that the record comes too late.
pub(crate) fn half_for(epoch: u32, word: u64) -> Option<u32> {
    let written = (word >> 32) as u32;
    if written == epoch {
        Some(word as u32)
    } else if is_before(written, epoch) {
        Some(0)
    } else {
        None
    }
}

/// What `word` holds of `epoch`, for who only reads.
pub(crate) fn half_in(epoch: u32, word: u64) -> u32 {
    half_for(epoch, word).unwrap_or(0)
}

/// A time that belongs to an epoch.
///
/// The epoch's last ten bits stand where the time has its last microsecond: a time is told up to 1,024 ns early.
#[derive(Debug)]
pub(crate) struct Dated(AtomicU64);

const TAG: u64 = (1 << 10) - 1;

impl Dated {
    /// How much too early it may be told.
    pub(crate) const EARLY: Duration = Duration::from_nanos(TAG);

    pub(crate) fn new(epoch: u32, at: Instant) -> Self {
        Self(AtomicU64::new(date(epoch, at)))
    }

    /// Notes `at` for `epoch`, unless a newer epoch or a later time of this one is there already.
    pub(crate) fn set(&self, epoch: u32, at: Instant) {
        let new = date(epoch, at);
        let _ = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
                let ahead = new.wrapping_sub(old) & TAG;
                let replaces = if ahead == 0 {
                    new > old
                } else {
                    ahead <= TAG / 2
                };
                replaces.then_some(new)
            });
    }

    /// The time noted for `epoch`; `None` while who began it is about to note it.
    pub(crate) fn get(&self, epoch: u32) -> Option<Instant> {
        let word = self.0.load(Ordering::Acquire);
        (word & TAG == u64::from(epoch) & TAG).then(|| {
            // What is too far to be told apart from never is never.
            match word | TAG {
                u64::MAX => Instant::NEVER,
                _ => Instant::from_nanos(word & !TAG),
            }
        })
    }
}

fn date(epoch: u32, at: Instant) -> u64 {
    at.as_nanos() & !TAG | u64::from(epoch) & TAG
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1 << 60);

    #[test]
    fn epochs_wrap() {
        assert!(is_before(1, 2) && !is_before(2, 1) && !is_before(2, 2));
        assert!(is_before(u32::MAX, 0) && !is_before(0, u32::MAX));
        assert_eq!(half_for(0, pack(u32::MAX, 9)), Some(0));
        assert_eq!(half_for(u32::MAX, pack(0, 9)), None);
        let date = Dated::new(u32::MAX, NOW);
        date.set(0, NOW);
        assert_eq!((date.get(0), date.get(u32::MAX)), (Some(NOW), None));
    }

    #[test]
    fn a_date_is_replaced_by_a_newer_epoch_or_a_later_time_only() {
        let later = Instant::from_nanos((1 << 60) + 4_096);
        let date = Dated::new(7, later);
        date.set(7, NOW);
        assert_eq!(date.get(7), Some(later));
        date.set(8, NOW);
        assert_eq!((date.get(7), date.get(8)), (None, Some(NOW)));
        date.set(7, later);
        assert_eq!(date.get(8), Some(NOW));
        date.set(8, later);
        assert_eq!(date.get(8), Some(later));
    }

    #[test]
    fn never_stays_never() {
        assert_eq!(Dated::new(3, Instant::NEVER).get(3), Some(Instant::NEVER));
    }
}
