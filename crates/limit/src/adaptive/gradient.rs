//! Envoy's gradient.

use std::{collections::VecDeque, time::Duration};

use super::algorithm::{Algorithm, Hears, Latencies, Move, Usage, Why, Window};

/// Envoy's gradient: the limit follows the ratio of how long calls take at best and now.
///
/// `new = limit * g + sqrt(limit * g)` with `g = clamp(1.25 * best / now, 0.5, 2)`, where `now` is the median of a window
/// of at least 100 ms and 50 attempts. It does not grow while less than half of the limit is in use.
///
/// Envoy measures the best time by holding the limit at 3 for 50 requests now and then, and refuses what is above
/// meanwhile. Here it is the best window of the latest 600, so nobody is refused for a measurement, and one lucky
/// sample does not hold for ever.
#[derive(Clone, Debug, Default)]
pub struct Gradient {
    medians: VecDeque<f64>,
}

const BUFFER: f64 = 0.25;
const WINDOWS: usize = 600;
const WINDOW: Window = Window {
    length: Duration::from_millis(100),
    samples: 50,
};

impl Gradient {
    /// As Envoy's defaults, but for how the best time is found.
    pub fn new() -> Self {
        Self::default()
    }

    fn remember(&mut self, median: f64) -> f64 {
        if self.medians.len() == WINDOWS {
            self.medians.pop_front();
        }
        self.medians.push_back(median);
        self.medians.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// The new limit when calls take `now` that took `best` at best.
fn limit(limit: usize, best: f64, now: f64) -> usize {
    let gradient = ((best + BUFFER * best) / now).clamp(0.5, 2.0);
    let scaled = limit as f64 * gradient;
    (scaled + scaled.sqrt()) as usize
}

impl Algorithm for Gradient {
    fn hears(&self) -> Hears {
        Hears::Latencies(WINDOW)
    }

    fn measured(&mut self, usage: Usage, latencies: Latencies) -> Option<Move> {
        let now = latencies.median.as_secs_f64().max(f64::MIN_POSITIVE);
        let new = limit(usage.limit, self.remember(now), now);
        let grows = new > usage.limit;
        (!grows || usage.is_pressed()).then(|| Move::to(new, Why::Latency))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // scenario 21
    #[test]
    fn two_and_a_half_times_the_best_time_lowers_a_hundred_to_fifty_seven() {
        assert_eq!(limit(100, 10.0, 25.0), 57);
    }

    #[test]
    fn no_window_more_than_doubles_it_or_less_than_halves_it_but_for_the_root() {
        assert_eq!(limit(100, 100.0, 1.0), 214);
        assert_eq!(limit(100, 1.0, 1_000.0), 57);
    }

    fn measured(this: &mut Gradient, millis: u64, in_use: usize) -> Option<Move> {
        let usage = Usage {
            limit: 100,
            in_use,
            min: 1,
            max: 1_000,
        };
        let took = Duration::from_millis(millis);
        let latencies = Latencies {
            mean: took,
            median: took,
            least: took,
        };
        this.measured(usage, latencies)
    }

    // scenario 21
    #[test]
    fn it_does_not_grow_while_less_than_half_is_in_use_and_shrinks_even_so() {
        let mut this = Gradient::new();
        assert_eq!(measured(&mut this, 10, 49), None);
        assert_eq!(
            measured(&mut this, 10, 50),
            Some(Move::to(136, Why::Latency))
        );
        assert_eq!(measured(&mut this, 25, 1), Some(Move::to(57, Why::Latency)));
    }

    /// Whether a time that was measured once counts no more after so many windows; `best` is told a time, and says which
    /// is the best one.
    fn is_forgotten(mut best: impl FnMut(f64) -> f64) -> bool {
        best(10.0);
        (0..WINDOWS).for_each(|_| _ = best(25.0));
        limit(100, best(25.0), 25.0) > 100
    }

    // flaw T29
    #[test]
    fn the_best_time_is_forgotten_after_six_hundred_windows() {
        let mut this = Gradient::new();
        assert!(is_forgotten(|time| this.remember(time)));
    }

    // flaw T29, as tower-resilience's Vegas has it
    #[test]
    fn a_best_time_that_is_kept_is_not() {
        let mut least = f64::INFINITY;
        let keeps = |time: f64| {
            least = least.min(time);
            least
        };
        assert!(!is_forgotten(keeps));
    }
}
