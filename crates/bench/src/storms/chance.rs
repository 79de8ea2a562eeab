//! What a seed decides of a small run.

use tower_mesh::core::Rng;

use super::{Run, Size};

/// Draws what a run leaves to chance; a full one leaves nothing.
pub(super) struct Chance {
    rng: Rng,
    size: Size,
}

impl Chance {
    pub(super) fn new(run: &Run) -> Self {
        // Apart from what the simulation draws from the same seed.
        const APART: u64 = 0x5707_0000_0000_0000;
        Self {
            rng: Rng::seeded(run.seed ^ APART),
            size: run.size,
        }
    }

    /// One of them; the first in a full run.
    pub(super) fn one_of<T: Copy>(&self, all: &[T]) -> T {
        match self.size {
            Size::Full => all[0],
            Size::Small => all[self.rng.below(all.len())],
        }
    }

    /// All of them in a full run, one in a small one.
    pub(super) fn some_of<T: Copy>(&self, all: &[T]) -> Vec<T> {
        match self.size {
            Size::Full => all.to_vec(),
            Size::Small => vec![self.one_of(all)],
        }
    }

    /// The study's loads, or one between them.
    pub(super) fn loads(&self) -> Vec<f64> {
        match self.size {
            Size::Full => vec![0.7, 0.85],
            Size::Small => vec![0.7 + 0.15 * self.rng.unit()],
        }
    }
}
