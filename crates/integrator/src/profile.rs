//! Policies by the kind of service that is called.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use tower_mesh_core::Ratio;

use crate::policy::{BreakerPolicy, LimitPolicy, Policy, RetryPolicy};

/// What kind of service is called: each has a [`Policy`] of its own, to begin from.
///
/// Where a row says nothing, the setting is that of [`Policy`]'s own table, which is the internal profile.
///
/// | setting | internal | external | batch | why the others differ |
/// |---|---|---|---|---|
/// | `timeout` | 10 s | 30 s | 5 min | an answer from outside takes the internet and somebody else's queue; a job is waited for as long as it takes |
/// | `retry.attempts` | 3 | 3 | 5 | MeshIntegrator's 3; nobody waits for a job, so it may go on trying |
/// | `retry.per_try_timeout` | 3 s | 10 s | 1 min | three tries have to fit the call |
/// | `retry.backoff` | 25 ms to 250 ms | 1 s to 15 s | 500 ms to 30 s | MeshIntegrator's; who is not ours should not be pressed |
/// | `breaker.open_for` | 1 s to 60 s | 30 s to 5 min | 5 s to 5 min | MeshIntegrator's reset of 30 s, doubling to Envoy's longest ejection |
/// | `limit.max_in_flight` | 1,024 | 256 | 64 | others count their callers' connections; a job must not starve those who wait for answers |
/// | `limit.queue` | none | none | 1,000, 1 min | a job may wait its turn |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Profile {
    /// Services of one organisation, inside one data centre.
    #[default]
    Internal,
    /// Somebody else's API, over the internet.
    External,
    /// Jobs that nobody waits for.
    Batch,
}

const SECOND: Duration = Duration::from_secs(1);

impl Profile {
    /// All of them, by the name that a configuration gives them.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("internal", Self::Internal),
        ("external", Self::External),
        ("batch", Self::Batch),
    ];

    /// Its policy.
    pub fn policy(self) -> Policy {
        let internal = Policy::default();
        match self {
            Self::Internal => internal,
            Self::External => external(internal),
            Self::Batch => batch(internal),
        }
    }
}

fn external(internal: Policy) -> Policy {
    Policy {
        timeout: 30 * SECOND,
        retry: RetryPolicy {
            per_try_timeout: Some(10 * SECOND),
            backoff: SECOND,
            max_backoff: 15 * SECOND,
            ..internal.retry
        },
        breaker: BreakerPolicy {
            failure_rate: Ratio::percent(50),
            open_for: 30 * SECOND,
            max_open: 300 * SECOND,
            ..internal.breaker
        },
        limit: LimitPolicy {
            max_in_flight: const { NonZeroUsize::new(256).expect("not zero") },
            ..internal.limit
        },
        ..internal
    }
}

fn batch(internal: Policy) -> Policy {
    Policy {
        timeout: 300 * SECOND,
        retry: RetryPolicy {
            attempts: const { NonZeroU32::new(5).expect("not zero") },
            per_try_timeout: Some(60 * SECOND),
            backoff: SECOND / 2,
            max_backoff: 30 * SECOND,
            ..internal.retry
        },
        breaker: BreakerPolicy {
            open_for: 5 * SECOND,
            max_open: 300 * SECOND,
            ..internal.breaker
        },
        limit: LimitPolicy {
            max_in_flight: const { NonZeroUsize::new(64).expect("not zero") },
            queue: 1_000,
            max_wait: 60 * SECOND,
            ..internal.limit
        },
        ..internal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The golden table: who changes a default changes it here, and in the tables that users read.
    #[test]
    fn the_profiles_are_those_of_the_tables() {
        let golden = [
            ("timeout", ["10s", "30s", "5m"]),
            ("balance", ["best-of-three"; 3]),
            ("min_nearby", ["3"; 3]),
            ("subset.size", ["none"; 3]),
            ("subset.client", [""; 3]),
            ("hash.header", ["none"; 3]),
            ("hash.seed", ["0"; 3]),
            ("hash.capacity", ["1.25"; 3]),
            ("panic.max_out", ["50 %"; 3]),
            ("panic.min_healthy", ["1"; 3]),
            ("retry.attempts", ["3", "3", "5"]),
            ("retry.per_try_timeout", ["3s", "10s", "1m"]),
            ("retry.budget", ["10 %"; 3]),
            ("retry.min_per_second", ["1"; 3]),
            ("retry.backoff", ["25ms", "1s", "500ms"]),
            ("retry.max_backoff", ["250ms", "15s", "30s"]),
            ("breaker.consecutive_failures", ["5"; 3]),
            ("breaker.failure_rate", ["50 %"; 3]),
            ("breaker.open_for", ["1s", "30s", "5s"]),
            ("breaker.max_open", ["1m", "5m", "5m"]),
            ("breaker.service", ["false"; 3]),
            ("ejection.enabled", ["true"; 3]),
            ("ejection.failure_rate", ["50 %"; 3]),
            ("ejection.eject_for", ["30s"; 3]),
            ("ejection.max_eject", ["5m"; 3]),
            ("health.check", ["none"; 3]),
            ("health.path", ["none"; 3]),
            ("health.interval", ["10s"; 3]),
            ("health.time_limit", ["1s"; 3]),
            ("health.unhealthy_after", ["3"; 3]),
            ("health.healthy_after", ["1"; 3]),
            ("health.grpc_service", [""; 3]),
            ("slow_start", ["30s"; 3]),
            ("hedge.percentile", ["none"; 3]),
            ("hedge.attempts", ["2"; 3]),
            ("limit.max_in_flight", ["1024", "256", "64"]),
            ("limit.adaptive", ["true"; 3]),
            ("limit.queue", ["0", "0", "1000"]),
            ("limit.max_wait", ["1s", "1s", "1m"]),
        ];
        for (nth, (name, profile)) in Profile::NAMES.into_iter().enumerate() {
            let policy = profile.policy();
            assert_eq!(policy.validate(), Ok(()), "{name}");
            let settings = policy.settings();
            assert_eq!(settings.len(), golden.len());
            for ((key, is), (golden, should)) in settings.iter().zip(golden) {
                assert_eq!((*key, is.as_str()), (golden, should[nth]), "{name}");
            }
        }
    }
}
