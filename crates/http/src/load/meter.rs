//! How busy this server is.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tower_mesh_core::{Class, Clock, Finish, Instant, Outcome, Report, frame};

/// Counts the calls that a server serves, how long they are there and how many fail.
///
/// [`ReportLoadLayer`](crate::ReportLoadLayer) has one and says what it shows in each response; this is for those who
/// serve something else than HTTP, or want to see it.
///
/// # Clone
///
/// A clone counts the same.
#[derive(Clone)]
pub struct Meter {
    clock: Clock,
    counts: Arc<Counts>,
}

struct Counts {
    in_flight: AtomicU32,
    /// Means over the last calls, as two `f32` that change as one: how long they were here, in microseconds (upper half),
    /// and how many there were when they came, themselves included. Of calls that succeeded.
    means: AtomicU64,
    /// The share of the last calls that failed: an `f32`.
    failing: AtomicU32,
}

/// How much of the means the last call is: they look back some thirty calls, a tenth of a second of a busy server.
const WEIGHT: f32 = 1.0 / 32.0;

/// No call has been measured: a NaN, which no call can produce.
const NOTHING: u64 = (f32::NAN.to_bits() as u64) << 32;

impl Meter {
    /// One that has counted nothing, and reads this clock.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            counts: Arc::new(Counts {
                in_flight: AtomicU32::new(0),
                means: AtomicU64::new(NOTHING),
                failing: AtomicU32::new(0f32.to_bits()),
            }),
        }
    }

    /// A call has come: it counts until what this gives is dropped.
    #[must_use = "the call counts until this is dropped"]
    pub fn begin(&self) -> Metered {
        Metered {
            found: self.counts.in_flight.fetch_add(1, Relaxed) + 1,
            since: frame::now(&self.clock),
            meter: self.clone(),
            finished: false,
        }
    }

    /// How busy the server is now.
    pub fn report(&self) -> Report {
        let counts = &*self.counts;
        let means = counts.means.load(Relaxed);
        let (took_us, with) = (upper(means), lower(means));
        // Nothing is known yet: NaN becomes zero.
        let each_us = (took_us / with.max(1.0)).max(0.0);
        let each = Duration::from_nanos((each_us * 1e3) as u64);
        let failing = f32::from_bits(counts.failing.load(Relaxed));
        Report::new(counts.in_flight.load(Relaxed), each).with_failing(failing)
    }
}

impl Counts {
    // Of two that record at once one is lost, as in core's `Load`: that sample is not worth a loop.
    fn record(&self, success: bool, took_us: f32, found: u32) {
        let failing = f32::from_bits(self.failing.load(Relaxed));
        let now = f32::from(u8::from(!success));
        let failing = failing + WEIGHT * (now - failing);
        self.failing.store(failing.to_bits(), Relaxed);
        // An error may be fast. It says nothing of how long the work takes that a call came for.
        if !success {
            return;
        }
        let (found, old) = (found as f32, self.means.load(Relaxed));
        let (mut took, mut with) = (took_us, found);
        if !upper(old).is_nan() {
            took = upper(old) + WEIGHT * (took - upper(old));
            with = lower(old) + WEIGHT * (with - lower(old));
        }
        let means = u64::from(took.to_bits()) << 32 | u64::from(with.to_bits());
        self.means.store(means, Relaxed);
    }
}

fn upper(word: u64) -> f32 {
    f32::from_bits((word >> 32) as u32)
}

fn lower(word: u64) -> f32 {
    f32::from_bits(word as u32)
}

/// A call that is being served, see [`Meter::begin`].
///
/// Dropped without an outcome it is forgotten: the caller has gone.
#[must_use = "the call counts until this is dropped"]
pub struct Metered {
    meter: Meter,
    since: Instant,
    /// How many calls there were with it when it came.
    found: u32,
    finished: bool,
}

impl Metered {
    /// How busy the server is without this call.
    pub fn report_of_others(&self) -> Report {
        let report = self.meter.report();
        let others = report.in_flight().saturating_sub(1);
        Report::new(others, report.each()).with_failing(report.failing())
    }
}

impl Finish for Metered {
    fn finish(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.finished, true) || outcome.class() == Class::Neutral {
            return;
        }
        let took = frame::now(&self.meter.clock).since(self.since);
        let took_us = took.as_nanos() as f32 / 1e3;
        let success = outcome.is_success();
        self.meter.counts.record(success, took_us, self.found);
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.meter.counts.in_flight.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meter").field(&self.report()).finish()
    }
}

impl fmt::Debug for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered")
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tower_mesh_core::ManualClock;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn meter() -> (Meter, ManualClock) {
        let (clock, time) = Clock::manual();
        (Meter::new(clock), time)
    }

    #[test]
    fn before_anything_was_measured_it_says_no_time() {
        let (meter, _) = meter();
        let call = meter.begin();
        assert_eq!(meter.report(), Report::new(1, Duration::ZERO));
        drop(call);
        assert_eq!(meter.report(), Report::new(0, Duration::ZERO));
    }

    #[test]
    fn the_time_of_a_call_is_shared_by_those_that_are_there_at_once() {
        let (meter, time) = meter();
        for _ in 0..300 {
            let mut calls: Vec<_> = (0..5).map(|_| meter.begin()).collect();
            time.advance(12 * MS);
            calls
                .iter_mut()
                .for_each(|call| call.finish(Outcome::success()));
        }
        // They find 3 in the mean: 12 ms for 3 are 4 ms each.
        let each = meter.report().each();
        assert!(each > 3 * MS && each < 5 * MS, "{each:?}");
    }

    #[test]
    fn what_fails_fast_makes_no_server_look_fast() {
        let (meter, time) = meter();
        let mut call = meter.begin();
        time.advance(20 * MS);
        call.finish(Outcome::success());
        drop(call);
        for _ in 0..200 {
            meter.begin().finish(Outcome::failure());
        }
        let report = meter.report();
        assert_eq!(report.each(), 20 * MS);
        assert!(report.failing() > 0.99, "{report:?}");
    }

    #[test]
    fn who_goes_away_gives_the_place_back_and_says_nothing() {
        let (meter, time) = meter();
        let call = meter.begin();
        time.advance(500 * MS);
        drop(call);
        meter.begin().finish(Outcome::neutral());
        assert_eq!(meter.report(), Report::new(0, Duration::ZERO));
    }

    #[test]
    fn a_call_does_not_count_itself_when_it_says_how_busy_the_server_is() {
        let (meter, _) = meter();
        let (one, other) = (meter.begin(), meter.begin());
        assert_eq!(other.report_of_others().in_flight(), 1);
        drop(one);
        assert_eq!(other.report_of_others().in_flight(), 0);
    }
}
