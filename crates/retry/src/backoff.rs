//! How long to wait before a retry.

use std::time::Duration;

use tower_mesh_core::Ratio;

/// Waits that grow with each retry of a call, and are spread so that callers who failed together do not come back
/// together.
///
/// The default is Envoy's: below 25 ms, 75 ms, 175 ms, and never 250 ms or more.
///
/// # Example
///
/// ```
/// # use std::time::Duration;
/// # use tower_mesh_core::Ratio;
/// # use tower_mesh_retry::{Backoff, Jitter};
/// // gRPC's (A6): 100 ms, 200 ms, 400 ms … 1 s, each 20 % more or less.
/// let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(1))
///     .jitter(Jitter::Around(Ratio::percent(20)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    factor: f64,
    jitter: Jitter,
}

/// How waits are spread.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
#[non_exhaustive]
pub enum Jitter {
    /// Anything between nothing and all steps so far together: with base 25 ms and factor 2, below 25 ms, 75 ms,
    /// 175 ms. It spreads most (Envoy; AWS calls it full jitter).
    #[default]
    Full,
    /// The step, this share of it more or less; may exceed the longest wait by as much (gRPC).
    Around(Ratio),
    /// The step itself: for tests, and where only one caller waits.
    None,
}

impl Backoff {
    /// Steps that begin at `base`, double with each retry and end at `max`.
    pub const fn exponential(base: Duration, max: Duration) -> Self {
        Self {
            base,
            max,
            factor: 2.0,
            jitter: Jitter::Full,
        }
    }

    /// Sets by what a step is longer than the one before; what is below 1, or no number, counts as 1.
    #[must_use]
    pub const fn factor(mut self, factor: f64) -> Self {
        self.factor = factor.max(1.0);
        self
    }

    /// Sets how waits are spread.
    #[must_use]
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// The wait before the retry of this number, the first being 1; `chance` lies in `[0, 1)`.
    pub fn wait(&self, retry: u32, chance: f64) -> Duration {
        let before = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
        let step = || self.upto_max(self.factor.powi(before));
        let nanos = match self.jitter {
            Jitter::None => step(),
            Jitter::Around(share) => step() * (1.0 + share.get() * (2.0 * chance - 1.0)),
            Jitter::Full => self.upto_max(self.steps(before.saturating_add(1))) * chance,
        };
        // `as` saturates.
        Duration::from_nanos(nanos as u64)
    }

    /// The first `n` steps together, in units of the first.
    fn steps(&self, n: i32) -> f64 {
        if self.factor > 1.0 {
            (self.factor.powi(n) - 1.0) / (self.factor - 1.0)
        } else {
            f64::from(n)
        }
    }

    /// So many times the base, in nanoseconds, or the longest wait.
    fn upto_max(&self, times: f64) -> f64 {
        if self.base.is_zero() {
            return 0.0; // Else zero times infinity would be no number.
        }
        (self.base.as_nanos() as f64 * times).min(self.max.as_nanos() as f64)
    }
}

/// 25 ms to 250 ms with full jitter: Envoy's.
impl Default for Backoff {
    fn default() -> Self {
        Self::exponential(Duration::from_millis(25), Duration::from_millis(250))
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use proptest::prelude::*;
    use tower_mesh_core::Rng;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The shortest and the longest of many waits.
    fn extremes(backoff: &Backoff, retry: u32) -> (Duration, Duration) {
        let rng = Rng::seeded(u64::from(retry));
        let waits = (0..10_000).map(|_| backoff.wait(retry, rng.unit()));
        waits.fold((Duration::MAX, Duration::ZERO), |(min, max), wait| {
            (min.min(wait), max.max(wait))
        })
    }

    // scenario 1
    #[test]
    fn with_the_policy_of_grpc_waits_lie_20_percent_around_the_steps_even_beyond_the_longest() {
        let backoff =
            Backoff::exponential(ms(100), ms(1_000)).jitter(Jitter::Around(Ratio::percent(20)));
        for (retry, low, high) in [
            (1, 80, 120),
            (2, 160, 240),
            (3, 320, 480),
            (4, 640, 960),
            (5, 800, 1200),
        ] {
            let (min, max) = extremes(&backoff, retry);
            assert!(
                ms(low) <= min && max <= ms(high),
                "{retry}: {min:?} {max:?}"
            );
            // And they use the room they have.
            let room = ms(high) - ms(low);
            assert!(max - min > room.mul_f64(0.99), "{retry}: {min:?} {max:?}");
        }
    }

    // scenario 2
    #[test]
    fn the_default_is_envoys_uniform_below_25_75_and_175_ms_and_capped_at_250_ms() {
        let backoff = Backoff::default();
        for (retry, high) in [
            (1, 25),
            (2, 75),
            (3, 175),
            (4, 250),
            (50, 250),
            (u32::MAX, 250),
        ] {
            let (min, max) = extremes(&backoff, retry);
            assert!(
                max < ms(high) && max > ms(high).mul_f64(0.99),
                "{retry}: {max:?}"
            );
            assert!(min < ms(high).mul_f64(0.01), "{retry}: {min:?}");

            let rng = Rng::seeded(7);
            let waits = (0..10_000).map(|_| backoff.wait(retry, rng.unit()).as_secs_f64());
            let mean = waits.sum::<f64>() / 10_000.0;
            let half = ms(high).as_secs_f64() / 2.0;
            // Three standard deviations of the mean of a uniform draw.
            let sigma = 2.0 * half / 12f64.sqrt() / 100.0;
            assert!((mean - half).abs() < 3.0 * sigma, "{retry}: {mean}");
        }
    }

    #[test]
    fn without_jitter_waits_are_the_steps() {
        let backoff = Backoff::exponential(ms(100), ms(1_000)).jitter(Jitter::None);
        let waits = [1, 2, 3, 4, 5, 6].map(|retry| backoff.wait(retry, 0.9));
        assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000].map(ms));
        let constant = backoff.factor(1.0);
        assert_eq!(constant.wait(9, 0.1), ms(100));
        assert_eq!(constant.jitter(Jitter::Full).wait(3, 0.5), ms(150));
    }

    #[test]
    fn nothing_grows_to_nothing() {
        for jitter in [Jitter::Full, Jitter::Around(Ratio::ONE), Jitter::None] {
            let backoff = Backoff::exponential(Duration::ZERO, ms(100)).jitter(jitter);
            assert_eq!(backoff.wait(u32::MAX, 0.9), Duration::ZERO);
        }
    }

    #[test]
    fn what_is_no_factor_counts_as_one() {
        for bad in [f64::NAN, f64::NEG_INFINITY, -3.0, 0.0, 0.5] {
            let backoff = Backoff::exponential(ms(10), ms(100))
                .factor(bad)
                .jitter(Jitter::None);
            assert_eq!(backoff.wait(5, 0.0), ms(10), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_settings_make_it_panic_or_exceed_its_bounds(
            base in any::<u64>(),
            max in any::<u64>(),
            factor in any::<f64>(),
            retry in any::<u32>(),
            chance in 0.0..1.0f64,
            kind in 0..3,
        ) {
            let max = Duration::from_nanos(max);
            let jitter = match kind {
                0 => Jitter::Full,
                1 => Jitter::Around(Ratio::ONE),
                _ => Jitter::None,
            };
            let backoff = Backoff::exponential(Duration::from_nanos(base), max)
                .factor(factor)
                .jitter(jitter);
            let wait = backoff.wait(retry, chance).as_secs_f64();
            prop_assert!(wait <= max.as_secs_f64() * 2.0 + 1e-6);
            if base == 0 {
                prop_assert_eq!(wait, 0.0);
            }
        }
    }
}
