//! Who is an outlier: the decision, of counts alone.

use std::{cmp::Ordering, fmt};

use crate::outlier::policy::OutlierPolicy;

/// Why an endpoint was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EjectionReason {
    /// Too many calls in a row have failed.
    ConsecutiveFailures,
    /// It succeeds much less often than its peers.
    SuccessRate,
    /// Too large a share of its calls has failed.
    FailurePercentage,
    /// It takes much longer than its peers.
    Latency,
    /// It was ejected before a restart, and its time is not over.
    Restored,
}

impl EjectionReason {
    /// The word for it in logs, labels and files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::SuccessRate => "success_rate",
            Self::FailurePercentage => "failure_percentage",
            Self::Latency => "latency",
            Self::Restored => "restored",
        }
    }
}

impl fmt::Display for EjectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one endpoint did in an interval.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Calls that have ended.
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    /// Failures in a row, up to now.
    pub(crate) run: u64,
    pub(crate) latency_us: Option<f32>,
    /// Whether the evaluation before found it slow.
    pub(crate) was_slow: bool,
    /// Whether it is ejected, or kept from calls on purpose: it is compared with, but not chosen.
    pub(crate) exempt: bool,
}

impl Sample {
    fn success(&self) -> f64 {
        1.0 - self.failure()
    }

    fn failure(&self) -> f64 {
        match self.calls {
            0 => 0.0,
            calls => self.failures as f64 / calls as f64,
        }
    }
}

/// Who is an outlier by which rule, the worst first: if not all of them may be ejected, it is they who are. `slow` says
/// who is by [`slow`].
pub(crate) fn outliers(
    samples: &[Sample],
    slow: &[bool],
    policy: &OutlierPolicy,
) -> Vec<(usize, EjectionReason)> {
    let least_success = least_success(samples, policy);
    let find = |(index, (sample, slow)): (usize, (&Sample, &bool))| {
        let slow = (*slow && sample.was_slow).then_some(EjectionReason::Latency);
        let reason = reason(sample, least_success, policy).or(slow)?;
        (!sample.exempt).then_some((index, reason))
    };
    let mut found: Vec<_> = (samples.iter().zip(slow).enumerate())
        .filter_map(find)
        .collect();
    found.sort_by(|(a, _), (b, _)| worse(&samples[*a], &samples[*b]));
    found
}

fn reason(
    sample: &Sample,
    least_success: Option<f64>,
    policy: &OutlierPolicy,
) -> Option<EjectionReason> {
    let in_a_row = policy.consecutive.map(|most| u64::from(most.get()));
    if in_a_row.is_some_and(|most| sample.run >= most) {
        return Some(EjectionReason::ConsecutiveFailures);
    }
    let rate = policy.success_rate;
    if let Some(least) = least_success
        && sample.calls >= rate.volume
        && sample.success() < least
        && sample.success() < rate.floor.get()
    {
        return Some(EjectionReason::SuccessRate);
    }
    let share = policy.failures?;
    let is_failing = sample.calls >= share.volume && sample.failure() >= share.threshold.get();
    is_failing.then_some(EjectionReason::FailurePercentage)
}

/// Below which share of successes an endpoint is an outlier; nothing if too few have had enough calls to tell.
///
/// gRPC (A50) and Envoy: the mean less so many standard deviations of the population.
fn least_success(samples: &[Sample], policy: &OutlierPolicy) -> Option<f64> {
    let rule = policy.success_rate;
    let factor = rule.stdevs?;
    let rates: Vec<f64> = (samples.iter())
        .filter(|sample| sample.calls >= rule.volume.max(1))
        .map(Sample::success)
        .collect();
    if rates.is_empty() || rates.len() < rule.hosts {
        return None;
    }
    let count = rates.len() as f64;
    let mean = rates.iter().sum::<f64>() / count;
    let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
    Some(mean - factor * variance.sqrt())
}

/// Whose latency is so many times the median of its peers, and more than what is slow at all.
pub(crate) fn slow(samples: &[Sample], policy: &OutlierPolicy) -> Vec<bool> {
    let Some(rule) = policy.latency else {
        return vec![false; samples.len()];
    };
    let latency = |sample: &Sample| {
        let counts = !sample.exempt && sample.calls >= rule.volume;
        sample.latency_us.filter(|_| counts)
    };
    let mut all: Vec<f32> = samples.iter().filter_map(latency).collect();
    all.sort_unstable_by(f32::total_cmp);
    let is_slow = |sample| {
        let latency = latency(sample)?;
        let peers = f64::from(median_without(&all, latency)?);
        let latency = f64::from(latency);
        Some(latency >= peers * rule.times && latency >= rule.at_least.as_secs_f64() * 1e6)
    };
    let is_slow = |sample| is_slow(sample).unwrap_or(false);
    samples.iter().map(is_slow).collect()
}

/// The median of the others, of whom there must be two: of one peer nobody knows which of the two is the outlier.
fn median_without(sorted: &[f32], own: f32) -> Option<f32> {
    let peers = sorted.len().checked_sub(1).filter(|peers| *peers >= 2)?;
    let middle = (peers - 1) / 2;
    let place = sorted.partition_point(|latency| *latency < own);
    sorted.get(middle + usize::from(place <= middle)).copied()
}

fn worse(a: &Sample, b: &Sample) -> Ordering {
    let latency = |sample: &Sample| sample.latency_us.unwrap_or(0.0);
    (b.failure().total_cmp(&a.failure()))
        .then(b.run.cmp(&a.run))
        .then(latency(b).total_cmp(&latency(a)))
}

#[cfg(all(test, not(mesh_loom)))]
mod tests;
