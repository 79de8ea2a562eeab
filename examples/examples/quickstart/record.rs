//! What became of the calls that went one way.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::ways::Answer;

/// Collects answers; a clone is the same record.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Calls>>);

#[derive(Default)]
struct Calls {
    all: Summary,
    by: BTreeMap<SocketAddr, Summary>,
    failures: BTreeMap<String, usize>,
}

/// What became of some calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Summary {
    pub(crate) calls: usize,
    /// Of those that succeeded.
    latencies: Vec<Duration>,
}

impl Record {
    pub(crate) fn add(&self, answer: Answer, latency: Duration) {
        let calls = &mut *self.lock();
        let latency = answer.result.is_ok().then_some(latency);
        calls.all.add(latency);
        if let Some(server) = answer.by {
            calls.by.entry(server).or_default().add(latency);
        }
        if let Err(reason) = answer.result {
            *calls.failures.entry(reason).or_default() += 1;
        }
    }

    /// Calls that have ended, and how many of them succeeded.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let all = &self.lock().all;
        (all.calls, all.latencies.len())
    }

    pub(crate) fn summary(&self) -> Summary {
        self.lock().all.clone()
    }

    /// Of the calls that this server answered, or was to answer.
    pub(crate) fn summary_of(&self, server: SocketAddr) -> Summary {
        self.lock().by.get(&server).cloned().unwrap_or_default()
    }

    /// Why calls failed, the most frequent reason first.
    pub(crate) fn failures(&self) -> Vec<(String, usize)> {
        let mut failures: Vec<_> = self.lock().failures.clone().into_iter().collect();
        failures.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        failures
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Summary {
    fn add(&mut self, success: Option<Duration>) {
        self.calls += 1;
        self.latencies.extend(success);
    }

    /// The share of calls that succeeded; none of none is 0.
    pub(crate) fn success(&self) -> f64 {
        share(self.latencies.len(), self.calls)
    }

    /// The latency that `percent` of the successful calls did not exceed.
    pub(crate) fn latency(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        // The smallest rank of which that is true.
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied()
    }
}

pub(crate) fn share(part: usize, of: usize) -> f64 {
    if of == 0 {
        0.0
    } else {
        part as f64 / of as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_percentile_is_a_latency_that_was_measured() {
        let mut summary = Summary::default();
        assert_eq!(summary.latency(99), None);
        summary.add(Some(ms(7)));
        assert_eq!(summary.latency(50), Some(ms(7)));
        let mut summary = Summary::default();
        (1..=200).rev().for_each(|i| summary.add(Some(ms(i))));
        assert_eq!(summary.latency(50), Some(ms(100)));
        assert_eq!(summary.latency(99), Some(ms(198)));
        assert_eq!(summary.latency(100), Some(ms(200)));
    }

    #[test]
    fn failures_count_as_calls_have_reasons_and_no_latency() {
        let record = Record::default();
        let server = SocketAddr::from(([127, 0, 0, 1], 1));
        for (result, latency) in [
            (Ok(()), ms(1)),
            (Err("status 500"), ms(900)),
            (Err("no answer in time"), ms(900)),
            (Err("status 500"), ms(900)),
        ] {
            let answer = Answer {
                by: result.is_ok().then_some(server),
                result: result.map_err(str::to_owned),
            };
            record.add(answer, latency);
        }
        assert_eq!(record.counts(), (4, 1));
        assert_eq!(record.summary().success(), 0.25);
        assert_eq!(record.summary().latency(99), Some(ms(1)));
        assert_eq!(record.summary_of(server).success(), 1.0);
        assert_eq!(record.failures()[0], ("status 500".to_owned(), 2));
    }
}
