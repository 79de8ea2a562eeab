//! How busy, how fast and how successful an endpoint is, in a few atomics.

use std::fmt;

use crate::{
    report::Report,
    sync::{AtomicU64, Ordering},
    time::Instant,
};

/// The load of one endpoint as its callers in this process see it.
///
/// - in flight: attempts that have begun and whose response has not ended;
/// - latency: a mean weighted to the last second, of attempts that succeeded. Failures are kept out of it, or an
///   endpoint that fails fast would look fast;
/// - success: the share of attempts that succeeded, weighted the same way;
/// - peak: the latency that jumps up at once and decays with 10 s, kept only for balancers that ask for it. A failure
///   may raise it, never lower it;
/// - unanswered: calls given up by their callers before the endpoint had answered. They are no failures, but the endpoint
///   may still be at work on them: they fade away within seconds, and an answer clears them;
/// - reported: how long a call would take by what the server itself said last ([`Report`]), for balancers that ask for it.
pub struct Load {
    /// Attempts begun (upper 44 bits) and in flight (lower 20): one addition counts both.
    counts: AtomicU64,
    failures: AtomicU64,
    /// Latency in microseconds (upper half) and share of successes (lower half), both `f32`, so that they change as one.
    estimate: AtomicU64,
    /// When `estimate` was written last.
    updated: AtomicU64,
    /// Peak latency in microseconds (`f32`) and when it was written, in milliseconds: see [`Load::peak_us`].
    peak: AtomicU64,
    /// Calls given up (`f32`) and when the last was, in milliseconds; zero for none. See [`Load::unanswered`].
    unanswered: AtomicU64,
    /// The microseconds that a call would take as the server said (`f32`), and when it did, in milliseconds; zero for
    /// never. See [`Load::latency_with_report`].
    reported: AtomicU64,
}

/// What an attempt records besides the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Sampling {
    /// The mean latency only.
    #[default]
    Mean,
    /// The peak latency as well, for peak-EWMA balancing.
    Peak,
}

const IN_FLIGHT_BITS: u32 = 20;
const ONE_BEGUN: u64 = (1 << IN_FLIGHT_BITS) | 1;

/// No latency has been seen: a NaN, which no sample can produce.
const NO_HISTORY: u32 = f32::NAN.to_bits();

/// How far back the mean looks; measured best between 0.5 and 2 s on moving loads.
const MEAN_TAU: f32 = 1e6;
/// The most that a sample leaves of it: with more a busy endpoint would average over thousands of calls in one millisecond.
const MOST_KEPT: f32 = 0.95;
/// Finagle's decay of the peak, in milliseconds.
const PEAK_TAU: f64 = 10e3;
/// How long a call that was given up counts as load, in milliseconds. An endpoint that hangs is then tried by one call
/// every eight seconds or so.
const UNANSWERED_TAU: f64 = 5e3;
/// How fast a report is forgotten, in milliseconds: what was in flight when it was written has been answered by then.
const REPORT_TAU: f32 = 50.0;
/// A report is no news any more, in milliseconds; what is left of it weighs less than half a percent.
const REPORT_TOO_OLD: i32 = 1_000;
/// A server is never believed to be faster than this share of what was measured, whatever it says: one that says it is idle
/// would else draw every call.
const BELIEVED_LEAST: f32 = 0.5;
/// Nor slower than so many times that. It would only harm itself, but one that reckons in other units would harm its peers.
const BELIEVED_MOST: f32 = 20.0;

impl Load {
    pub(crate) fn new() -> Self {
        Self {
            counts: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            estimate: AtomicU64::new(pack(NO_HISTORY, 1f32.to_bits())),
            updated: AtomicU64::new(0),
            peak: AtomicU64::new(pack(NO_HISTORY, 0)),
            unanswered: AtomicU64::new(0),
            reported: AtomicU64::new(0),
        }
    }

    pub(crate) fn begin(&self) {
        self.counts.fetch_add(ONE_BEGUN, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.counts.fetch_sub(1, Ordering::Relaxed);
    }

    /// Attempts that have begun and not ended.
    pub fn in_flight(&self) -> u32 {
        (self.counts.load(Ordering::Relaxed) & ((1 << IN_FLIGHT_BITS) - 1)) as u32
    }

    /// Attempts ever begun.
    pub fn attempts(&self) -> u64 {
        self.counts.load(Ordering::Relaxed) >> IN_FLIGHT_BITS
    }

    /// Attempts that counted against the endpoint.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The mean latency in microseconds, once an attempt has succeeded.
    pub fn latency_us(&self) -> Option<f32> {
        let latency = f32::from_bits(upper(self.estimate.load(Ordering::Relaxed)));
        (!latency.is_nan()).then_some(latency)
    }

    /// The share of attempts that succeeded, 0 to 1, weighted to the last second.
    pub fn success(&self) -> f32 {
        f32::from_bits(lower(self.estimate.load(Ordering::Relaxed)))
    }

    /// When an outcome was last recorded, or a latency to start from.
    pub fn updated(&self) -> Option<Instant> {
        match self.updated.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Instant::from_nanos(at)),
        }
    }

    /// The peak latency in microseconds, decayed to `now`; kept only under [`Sampling::Peak`].
    pub fn peak_us(&self, now: Instant) -> Option<f64> {
        decayed_peak(self.peak.load(Ordering::Relaxed), now)
    }

    /// Calls that were given up before the endpoint had answered any of them, fading with their age; 0 after an answer.
    pub fn unanswered(&self, now: Instant) -> f32 {
        match self.unanswered.load(Ordering::Relaxed) {
            0 => 0.0,
            word => faded(word, now),
        }
    }

    /// A latency that was measured, in microseconds, blended with what the server said of how long a call would take: the
    /// less the older that is (`e^(-age / 50 ms)`), and never less than half of what was measured or more than 20 times it.
    /// Without a report it is what was measured.
    #[inline]
    pub fn latency_with_report(&self, measured_us: f32, now: Instant) -> f32 {
        let report = self.reported.load(Ordering::Relaxed);
        // As for what decays: another thread may have written since `now` was read.
        let age = millis(now).wrapping_sub(lower(report)) as i32;
        if report == 0 || age.saturating_abs() > REPORT_TOO_OLD {
            return measured_us;
        }
        let x = age.max(0) as f32 / REPORT_TAU;
        // The series of the exponential: see `weight`.
        let fresh = 1.0 / (1.0 + x + 0.5 * x * x);
        let (least, most) = (BELIEVED_LEAST * measured_us, BELIEVED_MOST * measured_us);
        let said_us = f32::from_bits(upper(report)).max(least).min(most);
        measured_us + fresh * (said_us - measured_us)
    }

    /// Notes what the server said of itself; nothing if it cannot tell yet.
    pub fn report(&self, report: Report, now: Instant) {
        if let Some(expected_us) = report.expected_us() {
            let word = pack(expected_us.to_bits(), millis(now));
            self.reported.store(word, Ordering::Relaxed);
        }
    }

    /// Gives an endpoint without history a latency to start from: the median of its peers, so that it is neither
    /// flooded nor starved. A latency that was measured stays; this one counts as if it had been measured `now`.
    pub fn seed(&self, latency_us: f32, now: Instant) {
        if !latency_us.is_finite() || latency_us < 0.0 {
            return;
        }
        let fresh = pack(NO_HISTORY, 1f32.to_bits());
        let seeded = pack(latency_us.to_bits(), 1f32.to_bits());
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        let exchange = (self.estimate).compare_exchange(fresh, seeded, success, failure);
        if exchange.is_ok() {
            self.updated.store(now.as_nanos(), Ordering::Relaxed);
        }
    }

    #[cold]
    pub(crate) fn give_up(&self, now: Instant) {
        let calls = self.unanswered(now) + 1.0;
        self.unanswered
            .store(pack(calls.to_bits(), millis(now)), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn record(&self, success: bool, latency_ns: u64, now: Instant, sampling: Sampling) {
        // Of two that record at once one is lost: a compare-exchange loop costs more than that sample is worth.
        let before = self.updated.load(Ordering::Relaxed);
        self.updated.store(now.as_nanos(), Ordering::Relaxed);
        let kept = kept(micros(now.as_nanos().saturating_sub(before)));
        let old = self.estimate.load(Ordering::Relaxed);
        let latency_us = micros(latency_ns);
        let mean = f32::from_bits(upper(old));
        let mean = match success {
            true if mean.is_nan() => latency_us,
            true => mean + (1.0 - kept) * (latency_us - mean),
            false => mean,
        };
        // Not like the mean: what failures leave of it after minutes would be lost in the rounding of `1 - kept`, and
        // ejection reads from it whether there was a success between two failures.
        let rate = f32::from_bits(lower(old)) * kept + f32::from(u8::from(success)) * (1.0 - kept);
        self.estimate
            .store(pack(mean.to_bits(), rate.to_bits()), Ordering::Relaxed);
        if !success {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        if self.unanswered.load(Ordering::Relaxed) != 0 {
            self.unanswered.store(0, Ordering::Relaxed);
        }
        if sampling == Sampling::Peak {
            self.record_peak(success, f64::from(latency_us), now);
        }
    }

    #[cold]
    fn record_peak(&self, success: bool, latency_us: f64, now: Instant) {
        let old = self.peak.load(Ordering::Relaxed);
        let new = match decayed_peak(old, now) {
            None if !success => return,
            Some(decayed) if decayed > latency_us => {
                if !success {
                    return;
                }
                let keep = decay(old, now, PEAK_TAU);
                let last = f64::from(f32::from_bits(upper(old)));
                last * keep + latency_us * (1.0 - keep)
            }
            _ => latency_us,
        };
        self.peak
            .store(pack((new as f32).to_bits(), millis(now)), Ordering::Relaxed);
    }
}

/// How much of what was known is left by a sample that comes `elapsed_us` after the last: `e^-x`, but as the series
/// whose error stays below 4 % and which needs no call to `exp` (14 ns here, more than the rest of the sample).
fn kept(elapsed_us: f32) -> f32 {
    let x = elapsed_us / MEAN_TAU;
    (1.0 / (1.0 + x + 0.5 * x * x)).min(MOST_KEPT)
}

/// As microseconds. Half of it fits an `i64`, for which there is an instruction that a `u64` lacks.
fn micros(nanos: u64) -> f32 {
    (nanos >> 1) as i64 as f32 / 500.0
}

fn decayed_peak(peak: u64, now: Instant) -> Option<f64> {
    let last = f32::from_bits(upper(peak));
    (!last.is_nan()).then(|| f64::from(last) * decay(peak, now, PEAK_TAU))
}

#[cold]
#[inline(never)]
fn faded(unanswered: u64, now: Instant) -> f32 {
    let calls = f64::from(f32::from_bits(upper(unanswered)));
    (calls * decay(unanswered, now, UNANSWERED_TAU)) as f32
}

/// What is left of a value written with its time in `word`.
fn decay(word: u64, now: Instant, tau: f64) -> f64 {
    // Milliseconds wrap, so differences are signed: `now` was read at the beginning of a poll, and another thread may
    // have written since. An endpoint without a sample for 25 days merely keeps its value a little longer.
    let elapsed = millis(now).wrapping_sub(lower(word)) as i32;
    (-f64::from(elapsed.max(0)) / tau).exp()
}

fn millis(at: Instant) -> u32 {
    (at.as_nanos() / 1_000_000) as u32
}

const fn pack(upper: u32, lower: u32) -> u64 {
    (upper as u64) << 32 | lower as u64
}

const fn upper(word: u64) -> u32 {
    (word >> 32) as u32
}

const fn lower(word: u64) -> u32 {
    word as u32
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("in_flight", &self.in_flight())
            .field("latency_us", &self.latency_us())
            .field("success", &self.success())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::outcome::Outcome;

    const START: Instant = Instant::from_nanos(1 << 60);
    const MS: Duration = Duration::from_millis(1);

    fn record(load: &Load, outcome: Outcome, latency: Duration, now: Instant) {
        let latency = latency.as_nanos() as u64;
        load.record(outcome.is_success(), latency, now, Sampling::Peak);
    }

    #[test]
    fn counts_do_not_disturb_each_other() {
        let load = Load::new();
        for _ in 0..100 {
            load.begin();
        }
        for _ in 0..60 {
            load.end();
        }
        assert_eq!((load.in_flight(), load.attempts()), (40, 100));
    }

    #[test]
    fn fast_failures_do_not_make_an_endpoint_look_fast() {
        let load = Load::new();
        record(&load, Outcome::success(), 20 * MS, START);
        for i in 0..100 {
            record(&load, Outcome::failure(), Duration::ZERO, START + i * MS);
        }
        assert_eq!(load.latency_us(), Some(20_000.0));
        assert!(load.success() < 0.05, "{}", load.success());
        assert_eq!(load.failures(), 100);
    }

    #[test]
    fn the_mean_follows_within_the_last_second() {
        let load = Load::new();
        record(&load, Outcome::success(), 10 * MS, START);
        record(
            &load,
            Outcome::success(),
            100 * MS,
            START + Duration::from_secs(5),
        );
        assert!(load.latency_us() > Some(90_000.0), "{load:?}");
    }

    #[test]
    fn the_weight_of_a_sample_is_close_to_the_exponential_and_never_nothing() {
        for elapsed in [0.0f32, 1e4, 1e5, 5e5, 1e6, 3e6, 1e9] {
            let exact = (1.0 - (-f64::from(elapsed) / 1e6).exp()).max(0.05) as f32;
            assert!(
                (1.0 - kept(elapsed) - exact).abs() < 0.1 * exact,
                "{elapsed}"
            );
        }
        assert!(kept(f32::INFINITY) == 0.0);
    }

    #[test]
    fn the_peak_decays_to_a_third_in_ten_seconds_and_jumps_at_once() {
        let load = Load::new();
        record(&load, Outcome::success(), Duration::from_secs(2), START);
        let later = START + Duration::from_secs(10);
        let peak = load.peak_us(later).unwrap();
        assert!((peak - 736_000.0).abs() < 1_000.0, "{peak}");
        record(&load, Outcome::success(), Duration::from_secs(3), later);
        assert_eq!(load.peak_us(later), Some(3e6));
    }

    #[test]
    fn no_latency_is_negative_not_even_that_of_centuries() {
        let load = Load::new();
        load.record(true, u64::MAX, Instant::NEVER, Sampling::Mean);
        assert!(load.latency_us() > Some(1e16));
    }

    #[test]
    fn a_failure_may_raise_the_peak_but_never_lowers_it() {
        let load = Load::new();
        record(&load, Outcome::failure(), MS, START);
        assert_eq!(load.peak_us(START), None, "a failure alone is no history");
        record(&load, Outcome::success(), 20 * MS, START);
        for _ in 0..1_000 {
            record(&load, Outcome::failure(), Duration::ZERO, START);
        }
        assert_eq!(load.peak_us(START), Some(20_000.0));
        record(&load, Outcome::timeout(), 900 * MS, START);
        assert_eq!(load.peak_us(START), Some(900_000.0));
    }

    #[test]
    fn calls_given_up_count_until_they_fade_or_an_answer_comes() {
        let load = Load::new();
        assert_eq!(load.unanswered(START), 0.0);
        load.give_up(START);
        load.give_up(START);
        assert_eq!(load.unanswered(START), 2.0);
        let later = START + Duration::from_secs(5);
        assert!((load.unanswered(later) - 0.736).abs() < 0.001);
        load.give_up(later);
        assert!((load.unanswered(later) - 1.736).abs() < 0.001);
        assert_eq!(load.updated(), None, "it is no outcome");
        record(&load, Outcome::success(), MS, later);
        assert_eq!(load.unanswered(later), 0.0);
    }

    #[test]
    fn a_look_from_before_the_last_sample_finds_nothing_decayed() {
        let load = Load::new();
        load.give_up(START);
        assert_eq!(load.unanswered(START - MS), 1.0);
        record(&load, Outcome::success(), Duration::from_secs(2), START);
        assert_eq!(load.peak_us(START - MS), Some(2e6));
        record(&load, Outcome::success(), 20 * MS, START - MS);
        assert!(load.peak_us(START) > Some(1.99e6), "{load:?}");
    }

    #[test]
    fn a_seed_never_replaces_a_measurement() {
        let load = Load::new();
        load.seed(f32::NAN, START);
        assert_eq!((load.latency_us(), load.updated()), (None, None));
        load.seed(5_000.0, START);
        load.seed(9_000.0, START + MS);
        assert_eq!(load.latency_us(), Some(5_000.0));
        record(&load, Outcome::success(), 50 * MS, START + MS);
        assert!(load.latency_us() > Some(5_000.0));
    }

    #[test]
    fn a_seed_is_not_forgotten_with_the_first_sample() {
        let load = Load::new();
        load.seed(5_000.0, START);
        assert_eq!(load.updated(), Some(START));
        record(&load, Outcome::success(), 50 * MS, START + 10 * MS);
        assert!(load.latency_us() < Some(8_000.0), "{load:?}");
    }

    #[test]
    fn what_a_server_says_counts_while_it_is_news() {
        let load = Load::new();
        let at = |ms: u32| load.latency_with_report(10_000.0, START + ms * MS);
        assert_eq!(at(0), 10_000.0, "nothing was said");
        load.report(Report::new(2, 10 * MS), START);
        assert_eq!(at(0), 30_000.0);
        // 0.4 of it is left.
        assert!((at(50) - 18_000.0).abs() < 1.0, "{}", at(50));
        assert!((at(999) - 10_000.0).abs() < 100.0, "{}", at(999));
        assert_eq!(at(1_001), 10_000.0);
        load.report(Report::new(7, Duration::ZERO), START + 1_001 * MS);
        assert_eq!(at(1_001), 10_000.0, "it cannot tell");
    }

    // row 34
    #[test]
    fn a_server_is_never_believed_beyond_half_of_what_was_measured_or_twenty_times_it() {
        for (each, believed) in [
            (Duration::from_nanos(1), 5_000.0),
            (4 * MS, 5_000.0),
            (Duration::from_secs(1), 200_000.0),
            (Duration::MAX, 200_000.0),
        ] {
            let load = Load::new();
            load.report(Report::new(0, each), START);
            assert_eq!(
                load.latency_with_report(10_000.0, START),
                believed,
                "{each:?}"
            );
        }
    }

    #[test]
    fn a_report_is_not_taken_for_news_again_when_milliseconds_wrap() {
        let load = Load::new();
        load.report(Report::new(9, 10 * MS), START);
        let at = |later: Duration| load.latency_with_report(10_000.0, START + later);
        let days = |days: u64| Duration::from_secs(days * 86_400);
        assert_eq!([at(days(24)), at(days(26)), at(days(40))], [10_000.0; 3]);
        let early = load.latency_with_report(10_000.0, START - MS);
        assert_eq!(early, 100_000.0, "another thread has written since");
    }
}
