//! When to ask again. Pure.

use std::time::Duration;

use tower_mesh_core::Rng;

/// How long answers hold, whatever they say themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

/// Before anybody asks again after an error, at first.
const FIRST: Duration = Duration::from_millis(250);
/// And at last, as with Consul.
const LONGEST: Duration = Duration::from_secs(10);
/// Less would be a loop.
pub(crate) const SHORTEST: Duration = Duration::from_millis(10);

impl Bounds {
    /// How long to wait before an answer that holds for `ttl` seconds is asked for anew.
    ///
    /// Up to a fifth less than it holds, by chance: it is there before the old one is over, and who began together does not
    /// ask together for ever.
    pub(crate) fn refresh(&self, ttl: u32, rng: &Rng) -> Duration {
        // RFC 2181, section 8: what would be negative is zero.
        let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
        let holds = Duration::from_secs(ttl.into()).max(self.min);
        // Not `clamp`, which panics if somebody has set them the other way round.
        let holds = holds.min(self.max.max(self.min));
        holds.mul_f64(1.0 - rng.unit() / 5.0)
    }

    /// How long to wait after `errors` in a row: twice as long each time up to [`LONGEST`], half of it chance, and never
    /// longer than an answer may hold.
    pub(crate) fn retry(&self, errors: u32, rng: &Rng) -> Duration {
        let most = FIRST * (1 << errors.saturating_sub(1).min(10));
        let most = most.min(LONGEST).min(self.max).max(SHORTEST);
        most.mul_f64(0.5 + rng.unit() / 2.0)
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        min: Duration::from_secs(5),
        max: Duration::from_secs(60),
    };

    fn drawn(ttl: u32) -> (Duration, Duration) {
        let rng = Rng::seeded(1);
        let draws = (0..1_000).map(|_| BOUNDS.refresh(ttl, &rng));
        draws.fold((Duration::MAX, Duration::ZERO), |(least, most), drawn| {
            (least.min(drawn), most.max(drawn))
        })
    }

    #[test]
    fn an_answer_is_asked_for_anew_within_the_last_fifth_of_its_time() {
        let (least, most) = drawn(30);
        assert!(least >= Duration::from_secs(24) && most <= Duration::from_secs(30));
        assert!(most - least > Duration::from_secs(5), "spread over it");
    }

    #[test]
    fn no_ttl_is_too_short_or_too_long() {
        for short in [0, 4, 1 << 31, u32::MAX] {
            let (least, most) = drawn(short);
            assert!(
                least >= Duration::from_secs(4) && most <= BOUNDS.min,
                "{short}"
            );
        }
        for long in [61, 1_000_000_000, i32::MAX as u32] {
            let (least, most) = drawn(long);
            assert!(
                least >= Duration::from_secs(48) && most <= BOUNDS.max,
                "{long}"
            );
        }
    }

    #[test]
    fn after_errors_waits_double_up_to_the_longest_time_and_half_of_them_is_chance() {
        let rng = Rng::seeded(1);
        let wait = |errors| BOUNDS.retry(errors, &rng);
        assert!(wait(1) >= FIRST / 2 && wait(1) <= FIRST);
        assert!(wait(4) >= FIRST * 4 && wait(4) <= FIRST * 8);
        assert!(wait(u32::MAX) >= LONGEST / 2 && wait(u32::MAX) <= LONGEST);
    }
}
