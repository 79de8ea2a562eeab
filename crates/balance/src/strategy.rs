//! Which of several endpoints is the better one.

use std::time::Duration;

use tower_mesh_core::{Instant, Load, Sampling};

/// How an endpoint is chosen.
///
/// All of them honour weights, never choose an endpoint whose gate is shut, and cost the same for ten endpoints as for
/// a hundred thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// The best of three random endpoints by mean latency x (in flight + 1) / success rate squared.
    ///
    /// The default. In simulation (`tests/balance/simulation.rs` holds it) its p99 on an uneven fleet is below 0.6 times
    /// that of [`LeastInFlight`](Self::LeastInFlight) and below 0.95 times that of [`PeakEwma`](Self::PeakEwma); where load
    /// moves about, below 0.5 and 0.7 times; on an even fleet it is the same within 5 %.
    #[default]
    BestOfThree,
    /// The better of two random endpoints by peak latency x (in flight + 1) / success rate squared.
    ///
    /// The peak jumps up with each slow answer and decays within 10 s: Finagle's and linkerd's choice, more cautious
    /// after a single slow answer.
    PeakEwma,
    /// The better of two random endpoints by (in flight + 1) / success rate squared.
    ///
    /// For calls whose latency says nothing of the endpoint, such as long polls.
    LeastInFlight,
    /// As [`BestOfThree`](Self::BestOfThree), and a server may say in its answers how busy it is.
    ///
    /// The others know only of calls of their own; a server knows those of all its clients. What it said last is blended
    /// into the latency ([`Load::latency_with_report`]): so much the less the older it is, within 50 ms or so, and never
    /// as less than half of what was measured here, so that a server which lies or is wrong draws no crowd. A server that
    /// says nothing is judged as by `BestOfThree`.
    ///
    /// For services whose servers run the mesh, too: the classifier has to find the
    /// [report](tower_mesh_core::Classify::report), as that of `tower-mesh-http` does.
    Reported,
    /// One after the other.
    RoundRobin,
    /// A random one.
    Weighted,
}

/// The least success rate reckoned with, so that endpoints that only fail can still be compared.
const LEAST_SUCCESS: f32 = 0.05;

/// What an endpoint costs more that fails more often than this: no queue of others makes it worth a call.
const MOSTLY_FAILS: (f32, f32) = (0.5, 1e9);

/// From here on the success rate is as good as 1: what is missing is the tail of a failure long ago.
const FULL_SUCCESS: f32 = 0.999;

/// An endpoint without calls is taken to recover with this time constant. One that fails is so tried about every seven
/// seconds, and its first success then counts nearly in full, since it comes so long after the last failure.
const RECOVERY: Duration = Duration::from_secs(5);

/// What was measured so recently stands as it is.
const FRESH: Duration = Duration::from_secs(1);

/// After that, an idle endpoint is taken to be faster than it was, with this time constant: else one slow answer could
/// keep calls from it for ever. Finagle's decay.
const STALE: Duration = Duration::from_secs(10);

/// With less than this on its hands an endpoint counts as idle: calls given up fade out below it.
const IDLE: f32 = 0.25;

/// An endpoint that has never succeeded is tried again once it is taken to have recovered this far.
const TRY_AGAIN: f32 = 0.75;

/// The latency reckoned with, in microseconds, of an endpoint that has never succeeded while it has a call to show what it
/// can: worse than any that has been measured, better than failing.
const UNANSWERED: f32 = 1e12;

/// The same when such calls have been given up: slow, but not so slow that an endpoint which hangs now is preferred
/// because it once was fast.
const DOUBTFUL: f32 = 100e3;

impl Strategy {
    /// What a call costs by it; nothing if it does not compare.
    pub(crate) fn cost(self, load: &Load, relative: f32, at: &Moment) -> Option<f32> {
        match self {
            Self::BestOfThree => Some(by_mean_latency(load, relative, at)),
            Self::PeakEwma => Some(by_peak_latency(load, relative, at)),
            Self::Reported => Some(by_reported_latency(load, relative, at)),
            Self::LeastInFlight => Some(by_in_flight(load, relative, at)),
            Self::RoundRobin | Self::Weighted => None,
        }
    }

    /// Whether it goes by what servers say of themselves.
    #[inline(always)]
    pub(crate) const fn hears_reports(self) -> bool {
        matches!(self, Self::Reported)
    }

    /// What each attempt has to record for it.
    pub(crate) const fn sampling(self) -> Sampling {
        match self {
            Self::PeakEwma => Sampling::Peak,
            _ => Sampling::Mean,
        }
    }
}

/// When endpoints are compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    /// What was measured since then stands as it is.
    fresh: Instant,
}

impl Moment {
    pub(crate) fn new(now: Instant) -> Self {
        let fresh = now - FRESH;
        Self { now, fresh }
    }
}

/// What a call to an endpoint costs by its mean latency; less is better. `relative` is the mean weight divided by the
/// endpoint's.
#[inline(always)]
pub(crate) fn by_mean_latency(load: &Load, relative: f32, at: &Moment) -> f32 {
    cost(load.latency_us(), load, relative, at)
}

/// The same by its mean latency and what its server said last.
pub(crate) fn by_reported_latency(load: &Load, relative: f32, at: &Moment) -> f32 {
    let latency = load.latency_us();
    let blended = latency.map(|measured_us| load.latency_with_report(measured_us, at.now));
    cost(blended, load, relative, at)
}

/// The same by its peak latency, or by its mean until there is a peak.
pub(crate) fn by_peak_latency(load: &Load, relative: f32, at: &Moment) -> f32 {
    let peak = load.peak_us(at.now).map(|peak| peak as f32);
    cost(peak.or_else(|| load.latency_us()), load, relative, at)
}

/// The same as if all had the same latency.
pub(crate) fn by_in_flight(load: &Load, relative: f32, at: &Moment) -> f32 {
    cost(Some(1.0), load, relative, at)
}

/// Latency x (in flight + 1) / success rate squared.
#[inline(always)]
fn cost(latency: Option<f32>, load: &Load, relative: f32, at: &Moment) -> f32 {
    let busy = load.in_flight() as f32 + load.unanswered(at.now);
    let latency = match latency {
        None => unknown(load, busy, at),
        Some(latency) if load.updated().unwrap_or_default() < at.fresh => {
            stale(latency, load, busy, relative, at)
        }
        Some(latency) => latency,
    };
    let cost = latency * (busy * relative + 1.0);
    if load.success() > FULL_SUCCESS {
        cost
    } else {
        penalised(cost, load, at)
    }
}

#[cold]
#[inline(never)]
fn penalised(cost: f32, load: &Load, at: &Moment) -> f32 {
    let success = recovered(load, at);
    let (mostly, penalty) = MOSTLY_FAILS;
    cost / (success * success) * if success < mostly { penalty } else { 1.0 }
}

/// The latency reckoned with when none has been measured: it is tried by one call, and by no more until it has answered.
#[cold]
#[inline(never)]
fn unknown(load: &Load, busy: f32, at: &Moment) -> f32 {
    if load.in_flight() > 0 || recovered(load, at) < TRY_AGAIN {
        UNANSWERED
    } else if busy >= IDLE {
        DOUBTFUL
    } else {
        0.0
    }
}

/// The latency reckoned with when it was measured long ago. The more an endpoint weighs the sooner it fades, so that
/// endpoints of a service that is hardly called take turns as their weights say.
#[cold]
#[inline(never)]
fn stale(latency: f32, load: &Load, busy: f32, relative: f32, at: &Moment) -> f32 {
    // It has something to answer, so its silence makes nothing better.
    if busy >= IDLE {
        return latency;
    }
    let age = since_outcome(load, at) - FRESH.as_secs_f32();
    latency / growth(age / relative, STALE)
}

/// The success rate, so long after it was measured.
fn recovered(load: &Load, at: &Moment) -> f32 {
    let failing = (1.0 - load.success()) / growth(since_outcome(load, at), RECOVERY);
    (1.0 - failing).max(LEAST_SUCCESS)
}

/// The seconds since the last outcome; without any, as many as the clock has.
fn since_outcome(load: &Load, at: &Moment) -> f32 {
    let updated = load.updated().unwrap_or_default();
    at.now.since(updated).as_secs_f32()
}

/// `e^(elapsed/tau)`, but as the first terms of its series: within 8 % below `tau`, and without a call to `exp`.
fn growth(elapsed: f32, tau: Duration) -> f32 {
    let x = elapsed / tau.as_secs_f32();
    1.0 + x + 0.5 * x * x
}

#[cfg(all(test, not(mesh_loom)))]
mod tests;
