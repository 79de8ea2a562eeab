//! How many endpoints of a service may be out.

use tower_mesh_core::Ratio;

/// How many may be out, of those that nobody has withdrawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) max_share: Ratio,
    pub(crate) min_healthy: usize,
    pub(crate) at_least_one: bool,
}

/// Shares are compared in whole numbers, so that one that is just reached is not exceeded.
const WHOLE: f64 = 1e9;

impl Bounds {
    /// Whether `out` of `present` may be out.
    pub(crate) fn allow(&self, out: usize, present: usize) -> bool {
        let most = (self.max_share.get() * WHOLE).round() as u128;
        let within_share = out as u128 * WHOLE as u128 <= most * present as u128;
        let one = self.at_least_one && out <= 1;
        out + self.min_healthy <= present && (within_share || one)
    }

    /// How many of `present` may be out.
    pub(crate) fn most(&self, present: usize) -> usize {
        let share = self.max_share.get() * present as f64;
        // The float is a guess; the whole numbers decide.
        let guess = (share.ceil() as usize).max(1).min(present);
        (0..=guess)
            .rev()
            .find(|out| self.allow(*out, present))
            .unwrap_or(0)
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn bounds(percent: u8, min_healthy: usize, at_least_one: bool) -> Bounds {
        Bounds {
            max_share: Ratio::percent(percent),
            min_healthy,
            at_least_one,
        }
    }

    #[test]
    fn a_share_is_strict_and_just_reached_is_not_exceeded() {
        let most = |bounds: Bounds, of: &[usize]| -> Vec<usize> {
            of.iter().map(|present| bounds.most(*present)).collect()
        };
        assert_eq!(
            most(bounds(10, 1, false), &[1, 5, 9, 10, 19, 20]),
            [0, 0, 0, 1, 1, 2]
        );
        assert_eq!(
            most(bounds(10, 1, true), &[0, 1, 2, 9, 10, 20]),
            [0, 0, 1, 1, 1, 2]
        );
        assert_eq!(
            most(bounds(50, 1, false), &[0, 1, 2, 3, 4, 10]),
            [0, 0, 1, 1, 2, 5]
        );
        assert_eq!(most(bounds(100, 1, false), &[1, 2, 10]), [0, 1, 9]);
        assert_eq!(most(bounds(100, 0, false), &[1, 2]), [1, 2]);
        assert_eq!(most(bounds(30, 0, false), &[10]), [3]);
    }

    #[test]
    fn at_least_one_never_takes_the_last_healthy_one() {
        assert!(!bounds(0, 1, true).allow(1, 1));
        assert!(bounds(0, 1, true).allow(1, 2));
        assert!(!bounds(0, 1, true).allow(2, 3));
    }

    proptest! {
        #[test]
        fn the_most_is_what_is_just_allowed(
            percent in 0u8..=100, healthy in 0usize..4, one: bool, present in 0usize..200,
        ) {
            let bounds = bounds(percent, healthy, one);
            let most = bounds.most(present);
            prop_assert!(most == 0 || bounds.allow(most, present));
            prop_assert!(!bounds.allow(most + 1, present));
        }
    }
}
