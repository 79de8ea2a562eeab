//! Netflix's gradient.

use std::time::Duration;

use super::algorithm::{Algorithm, Hears, Latencies, Move, Usage, Why, Window};

/// Netflix's Gradient2: the limit follows the ratio of how long calls take at length and now.
///
/// `new = limit * clamp(1.5 * long / short, 0.5, 1) + 4`, smoothed by 0.2, where `long` is a mean over the latest 600
/// windows of at least 1 s and 10 attempts. It does not move while less than half of the limit is in use. The limit
/// must start low to learn anything (Netflix: 20), and a service that slowly gets slower teaches it to bear with it.
#[derive(Clone, Debug)]
pub struct Gradient2 {
    estimate: Option<f64>,
    long: LongMean,
}

const QUEUE: f64 = 4.0;
const TOLERANCE: f64 = 1.5;
const SMOOTHING: f64 = 0.2;
/// At this ratio of long to short the long mean is taken to lag behind.
const DRIFT: f64 = 2.0;
const WINDOW: Window = Window {
    length: Duration::from_secs(1),
    samples: 10,
};

impl Gradient2 {
    /// As Netflix's defaults.
    pub fn new() -> Self {
        Self {
            estimate: None,
            long: LongMean::default(),
        }
    }

    /// Takes in how long the calls of a window took, in seconds, and gives the new limit.
    fn sample(&mut self, short: f64, usage: Usage) -> f64 {
        let estimate = self.estimate.unwrap_or(usage.limit as f64);
        let long = self.long.add(short);
        if long / short > DRIFT {
            self.long.value *= 0.95;
        }
        if (usage.in_use as f64) < estimate / 2.0 {
            return estimate;
        }
        let gradient = (TOLERANCE * long / short).clamp(0.5, 1.0);
        let new = estimate * gradient + QUEUE;
        let smoothed = estimate * (1.0 - SMOOTHING) + new * SMOOTHING;
        smoothed.clamp(usage.min as f64, usage.max as f64)
    }
}

impl Default for Gradient2 {
    fn default() -> Self {
        Self::new()
    }
}

impl Algorithm for Gradient2 {
    fn hears(&self) -> Hears {
        Hears::Latencies(WINDOW)
    }

    fn measured(&mut self, usage: Usage, latencies: Latencies) -> Option<Move> {
        let short = latencies.mean.as_secs_f64().max(f64::MIN_POSITIVE);
        let limit = self.sample(short, usage);
        self.estimate = Some(limit);
        Some(Move::to(limit as usize, Why::Latency))
    }

    fn moved(&mut self, _: Usage) {
        self.estimate = None;
    }
}

/// A plain mean of the first ten, then an exponential one over 600.
#[derive(Clone, Debug, Default)]
struct LongMean {
    value: f64,
    sum: f64,
    count: u32,
}

impl LongMean {
    const WARM_UP: u32 = 10;
    const FACTOR: f64 = 2.0 / (600.0 + 1.0);

    fn add(&mut self, sample: f64) -> f64 {
        if self.count < Self::WARM_UP {
            self.count += 1;
            self.sum += sample;
            self.value = self.sum / f64::from(self.count);
        } else {
            self.value = self.value * (1.0 - Self::FACTOR) + sample * Self::FACTOR;
        }
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(in_use: usize) -> Usage {
        Usage {
            limit: 20,
            in_use,
            min: 1,
            max: 200,
        }
    }

    // scenario 21
    #[test]
    fn equal_means_grow_twenty_to_twenty_and_four_fifths() {
        let limit = Gradient2::new().sample(0.1, usage(20));
        assert!((limit - 20.8).abs() < 1e-9, "{limit}");
    }

    // scenario 21
    #[test]
    fn it_stays_when_less_than_half_is_in_use() {
        assert_eq!(Gradient2::new().sample(0.1, usage(9)), 20.0);
        assert!(Gradient2::new().sample(0.1, usage(10)) > 20.0);
    }

    #[test]
    fn calls_that_take_ten_times_as_long_lower_it_and_half_as_long_teach_the_long_mean() {
        let mut this = Gradient2::new();
        for _ in 0..20 {
            this.sample(0.1, usage(20));
        }
        // 20 * 0.8 + (20 * 0.5 + 4) * 0.2
        assert!((this.sample(1.0, usage(20)) - 18.8).abs() < 1e-9);
        let before = this.long.value;
        this.sample(0.01, usage(20));
        assert!(this.long.value < 0.96 * before);
    }
}
