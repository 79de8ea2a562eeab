//! A window of calls: a ring of bits.

use std::num::NonZeroU16;

use tower_mesh_core::sync::{AtomicU64, Ordering};

use super::Tally;
use crate::epoch;

/// Remembers of each of the last calls whether it counted against.
///
/// A call takes the next place of the ring with one compare-exchange and then writes its bit there, if it is not what
/// stands there already. Place and bits carry the epoch, so a new one starts cold without a write, and what comes late
/// from an old one finds no place.
///
/// A call that has its place and not yet written its bit counts as what stood there: what is read is off by at most the
/// calls that are being recorded at that moment.
#[derive(Debug)]
pub(crate) struct LastCalls {
    size: u32,
    /// The epoch (upper half) and the next place: below `size` while the ring fills, then `size` more than that.
    next: AtomicU64,
    /// The epoch (upper half) and a bit for each of 32 calls.
    words: Box<[AtomicU64]>,
}

const BITS: u32 = 32;

impl LastCalls {
    pub(crate) fn new(calls: NonZeroU16) -> Self {
        let size = u32::from(calls.get());
        Self {
            size,
            next: AtomicU64::new(0),
            words: (0..size.div_ceil(BITS))
                .map(|_| AtomicU64::new(0))
                .collect(),
        }
    }

    #[inline(never)]
    pub(crate) fn record(&self, against: bool, epoch: u32) {
        let Some(place) = self.take_place(epoch) else {
            return;
        };
        let bit = 1 << (place % BITS);
        let word = &self.words[(place / BITS) as usize];
        let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let old = epoch::half_for(epoch, word)?;
            let new = epoch::pack(epoch, if against { old | bit } else { old & !bit });
            (new != word).then_some(new)
        });
    }

    fn take_place(&self, epoch: u32) -> Option<u32> {
        let taken = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                let place = epoch::half_for(epoch, next)? + 1;
                // Full: round and round in the upper lap, so that a full ring is told from one that fills.
                let place = if place == 2 * self.size {
                    self.size
                } else {
                    place
                };
                Some(epoch::pack(epoch, place))
            })
            .ok()?;
        Some(epoch::half_for(epoch, taken)? % self.size)
    }

    pub(crate) fn tally(&self, epoch: u32) -> Tally {
        let filled = epoch::half_in(epoch, self.next.load(Ordering::Relaxed));
        let against = self
            .words
            .iter()
            .map(|word| epoch::half_in(epoch, word.load(Ordering::Relaxed)).count_ones())
            .sum();
        Tally {
            calls: filled.min(self.size),
            against,
        }
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(size: u16) -> LastCalls {
        LastCalls::new(NonZeroU16::new(size).expect("no test asks for none"))
    }

    fn tally(ring: &LastCalls, epoch: u32) -> (u32, u32) {
        let tally = ring.tally(epoch);
        (tally.calls, tally.against)
    }

    #[test]
    fn an_old_epoch_cannot_write_into_a_new_one() {
        let ring = ring(100);
        ring.record(true, 4);
        assert_eq!(tally(&ring, 5), (0, 0));
        ring.record(false, 5);
        ring.record(true, 4);
        assert_eq!(tally(&ring, 5), (1, 0));
        assert_eq!(tally(&ring, 4), (0, 0));
    }

    proptest! {
        // flaw T1: counters instead of a ring, so that 10,000 failures are needed after 10,000 successes
        #[test]
        fn it_holds_exactly_the_last_calls(size in 1u16..200, calls in prop::collection::vec(any::<bool>(), 0..700)) {
            let ring = ring(size);
            for against in &calls {
                ring.record(*against, 3);
            }
            let last = &calls[calls.len().saturating_sub(size.into())..];
            let against = last.iter().filter(|against| **against).count();
            prop_assert_eq!(tally(&ring, 3), (last.len() as u32, against as u32));
            // It goes round instead of on, so there is no call after which its place has no room in its word.
            let place = epoch::half_in(3, ring.next.load(Ordering::Relaxed));
            prop_assert!(place < 2 * u32::from(size));
        }
    }
}
