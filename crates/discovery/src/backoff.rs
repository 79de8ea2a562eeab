//! How long to wait before a source is asked again.

use std::time::Duration;

use tower_mesh_core::Rng;

/// The longest wait before a source that has ended is asked again.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);

/// Waits of 1 s to 30 s between look-ups that end, twice as long each time.
///
/// Half of each wait is chance, so that many clients of a registry that restarts do not come back together.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    waits: u32,
}

impl Backoff {
    pub(crate) fn next(&mut self, rng: &Rng) -> Duration {
        self.waits = (self.waits + 1).min(5);
        let most = Duration::from_secs(1 << self.waits).min(LONGEST);
        most.mul_f64(0.5 + rng.unit() / 2.0)
    }

    pub(crate) fn reset(&mut self) {
        self.waits = 0;
    }
}

/// Half of `around` to one and a half of it.
pub(crate) fn jittered(around: Duration, rng: &Rng) -> Duration {
    // In integers: no duration is too long for them.
    let half = around / 2;
    half.saturating_add(half.mul_f64(rng.unit()) * 2)
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_one_second_to_thirty_and_begin_anew_after_a_reset() {
        let rng = Rng::seeded(1);
        let mut backoff = Backoff::default();
        let ranges = [
            (1, 2),
            (2, 4),
            (4, 8),
            (8, 16),
            (15, 30),
            (15, 30),
            (15, 30),
        ];
        for (least, most) in ranges {
            let wait = backoff.next(&rng);
            assert!(
                wait >= Duration::from_secs(least) && wait <= Duration::from_secs(most),
                "{wait:?} is not within {least} s and {most} s"
            );
        }
        backoff.reset();
        assert!(backoff.next(&rng) <= Duration::from_secs(2));
    }

    #[test]
    fn jitter_spreads_by_half_to_either_side_and_takes_any_duration() {
        let rng = Rng::seeded(1);
        let second = Duration::from_secs(1);
        let drawn: Vec<_> = (0..100).map(|_| jittered(second, &rng)).collect();
        assert!(
            drawn
                .iter()
                .all(|d| *d >= second / 2 && *d <= second * 3 / 2)
        );
        assert!(drawn.iter().any(|d| *d < second) && drawn.iter().any(|d| *d > second));
        assert!(jittered(Duration::MAX, &rng) > Duration::MAX / 4);
        assert_eq!(jittered(Duration::ZERO, &rng), Duration::ZERO);
    }
}
