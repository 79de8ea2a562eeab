//! How calls are split over levels by how many of their endpoints are healthy.

/// Shares are counted in so many bits.
pub(super) const HALVES: u32 = 32;

/// The share of the calls that each level takes, the first first, and whether the healthy endpoints of all levels are
/// enough for all calls.
///
/// A level can take its share of healthy endpoints times `overprovisioning`, and takes that as far as something is left
/// by those before it. Where even all of them cannot take all, each takes that part of what all can. With nobody healthy
/// anywhere the first level takes all.
pub(super) fn split(healthy: &[f64], overprovisioning: f64) -> (Vec<f64>, bool) {
    let can_take = |healthy: &f64| (healthy * overprovisioning).clamp(0.0, 1.0);
    let total: f64 = healthy.iter().map(can_take).sum();
    let total = total.min(1.0);
    if total <= 0.0 {
        let only_first = (0..healthy.len()).map(|nth| f64::from(u8::from(nth == 0)));
        return (only_first.collect(), false);
    }
    let mut left = 1.0;
    let share = |healthy| {
        let share = f64::min(can_take(healthy) / total, left);
        left -= share;
        share
    };
    // What is lost to rounding is no lack.
    (healthy.iter().map(share).collect(), total > 1.0 - 1e-9)
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percent(healthy: &[u32]) -> (Vec<u32>, bool) {
        let healthy: Vec<f64> = healthy.iter().map(|p| f64::from(*p) / 100.0).collect();
        let (shares, is_enough) = split(&healthy, 1.4);
        let percent = shares.iter().map(|share| (share * 100.0).round() as u32);
        (percent.collect(), is_enough)
    }

    // scenario 15, and the table of Envoy's documentation
    #[test]
    fn what_the_first_cannot_take_spills_over() {
        for (healthy, shares, is_enough) in [
            (&[100, 100], [100, 0], true),
            (&[72, 100], [100, 0], true),
            (&[71, 100], [99, 1], true),
            (&[50, 100], [70, 30], true),
            (&[50, 60], [70, 30], true),
            (&[25, 100], [35, 65], true),
            (&[0, 100], [0, 100], true),
            (&[25, 25], [50, 50], false),
            (&[5, 65], [7, 93], false),
            (&[0, 0], [100, 0], false),
        ] {
            assert_eq!(
                percent(healthy),
                (shares.to_vec(), is_enough),
                "{healthy:?}"
            );
        }
        assert_eq!(percent(&[20, 20, 20, 40]).0, [28, 28, 28, 16]);
    }

    proptest! {
        #[test]
        fn shares_are_all_calls_and_nobody_takes_more_than_it_can_while_others_can(
            healthy in prop::collection::vec(0.0..=1.0f64, 1..10),
            factor in 1.0..3.0f64,
        ) {
            let (shares, is_enough) = split(&healthy, factor);
            let sum: f64 = shares.iter().sum();
            prop_assert!((sum - 1.0).abs() < 1e-9, "{shares:?}");
            let can_take: f64 = healthy.iter().map(|h| (h * factor).min(1.0)).sum();
            prop_assert_eq!(is_enough, can_take > 1.0 - 1e-9);
            for nth in 0..healthy.len() {
                prop_assert!((0.0..=1.0 + 1e-9).contains(&shares[nth]));
                let within = shares[nth] <= healthy[nth] * factor + 1e-9;
                prop_assert!(within || !is_enough, "{nth} of {shares:?} by {healthy:?}");
                // A later level takes something only if this one is at its limit.
                let later: f64 = shares[nth + 1..].iter().sum();
                let is_full = shares[nth] >= (healthy[nth] * factor).min(1.0) - 1e-9;
                prop_assert!(later < 1e-9 || is_full, "{nth} of {shares:?} by {healthy:?}");
            }
        }
    }
}
