//! One source of chance, seedable, so that a run can be repeated.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Random numbers for jitter, sampling and probing; never for secrets.
///
/// The default draws from a fast generator per thread. A seeded one gives the same sequence in each run as long as the
/// draws come in the same order.
///
/// # Clone
///
/// Clones of a seeded generator share one sequence.
#[derive(Clone, Default)]
pub struct Rng(Option<Arc<AtomicU64>>);

impl Rng {
    /// A generator whose sequence `seed` decides.
    pub fn seeded(seed: u64) -> Self {
        Self(Some(Arc::new(AtomicU64::new(seed))))
    }

    /// The next 64 random bits.
    pub fn next_u64(&self) -> u64 {
        match &self.0 {
            None => fastrand::u64(..),
            // SplitMix64: one addition on shared state, so it needs no lock.
            Some(state) => mix(state
                .fetch_add(GOLDEN, Ordering::Relaxed)
                .wrapping_add(GOLDEN)),
        }
    }

    /// A number below `bound`; zero if `bound` is zero.
    pub fn below(&self, bound: usize) -> usize {
        // Lemire's multiplication: no division, and a bias below bound / 2^64.
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// A number in `[0, 1)`.
    pub fn unit(&self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Rng::seeded"
        } else {
            "Rng"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_sequence() {
        let draw = |seed| {
            let rng = Rng::seeded(seed);
            [rng.next_u64(), rng.next_u64(), rng.next_u64()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn below_stays_below_and_reaches_every_value() {
        let rng = Rng::seeded(1);
        let mut seen = [0u32; 5];
        for _ in 0..10_000 {
            seen[rng.below(5)] += 1;
        }
        // 2,000 each, standard deviation 40.
        assert!(seen.iter().all(|n| (1_800..2_200).contains(n)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn unit_lies_in_zero_to_one() {
        let rng = Rng::default();
        assert!((0..1_000).all(|_| (0.0..1.0).contains(&rng.unit())));
    }
}
