//! What came of it.

use std::time::Duration;

/// What was measured of the calls that began while it was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub(crate) time: Duration,
    /// Nanoseconds, sorted, of the calls that were answered.
    pub(crate) latencies: Vec<u64>,
    pub(crate) calls: u64,
    pub(crate) failed: u64,
    pub(crate) in_flight: f64,
    pub(crate) servers: Vec<ServerReport>,
}

/// What one server had to do in that time.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ServerReport {
    /// Attempts that were sent to it.
    pub attempts: u64,
    /// Those that it answered with an error.
    pub failures: u64,
    /// Those that it has done the work of.
    pub answers: u64,
    /// Of these, work for nothing: whoever had asked for it had given up before it was done.
    pub unheard: u64,
    /// Attempts at the server at once, waiting or not: the most there were.
    pub peak_in_flight: usize,
    /// The same in the mean over time.
    pub in_flight: f64,
    /// The share of its slots that were in use.
    pub utilisation: f64,
}

impl Report {
    /// For how long it was measured.
    pub fn time(&self) -> Duration {
        self.time
    }

    /// The latency that this share of the answered calls stays below; exact, no histogram. Zero if there were none.
    pub fn latency(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let at = (self.latencies.len() as f64 * share) as usize;
        let nanos = self.latencies.get(at.min(last)).copied();
        Duration::from_nanos(nanos.unwrap_or_default())
    }

    /// The mean latency of the answered calls.
    pub fn mean_latency(&self) -> Duration {
        let sum: u128 = self.latencies.iter().map(|nanos| u128::from(*nanos)).sum();
        let calls = self.latencies.len().max(1) as u128;
        Duration::from_nanos((sum / calls) as u64)
    }

    /// Calls that began.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Of these, the calls that were answered.
    pub fn answered(&self) -> u64 {
        self.latencies.len() as u64
    }

    /// The calls that ended with an error.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// The calls that had not ended when this was reported.
    pub fn unfinished(&self) -> u64 {
        self.calls - self.answered() - self.failed
    }

    /// The failed calls as a share of all.
    pub fn error_share(&self) -> f64 {
        self.failed as f64 / self.calls.max(1) as f64
    }

    /// Attempts sent to servers; more than calls if some were tried again.
    pub fn attempts(&self) -> u64 {
        self.servers.iter().map(|server| server.attempts).sum()
    }

    /// Calls that ran at once, in the mean over time.
    pub fn in_flight(&self) -> f64 {
        self.in_flight
    }

    /// What each server had to do.
    pub fn servers(&self) -> &[ServerReport] {
        &self.servers
    }

    /// The attempts at one server as a multiple of what each would get if all got the same.
    pub fn share(&self, server: usize) -> f64 {
        let fair = self.attempts() as f64 / self.servers.len() as f64;
        self.servers[server].attempts as f64 / fair
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(latencies: Vec<u64>) -> Report {
        Report {
            time: Duration::from_secs(1),
            calls: latencies.len() as u64 + 2,
            latencies,
            failed: 1,
            in_flight: 0.0,
            servers: Vec::new(),
        }
    }

    #[test]
    fn quantiles_are_exact_and_there_are_some_of_nothing() {
        let hundred = report((1..=100).collect());
        assert_eq!(hundred.latency(0.5), Duration::from_nanos(51));
        assert_eq!(hundred.latency(0.99), Duration::from_nanos(100));
        assert_eq!(hundred.latency(1.0), Duration::from_nanos(100));
        assert_eq!((hundred.failed(), hundred.unfinished()), (1, 1));
        assert_eq!(report(vec![]).latency(0.5), Duration::ZERO);
        assert_eq!(report(vec![]).mean_latency(), Duration::ZERO);
    }
}
