//! Active checks of a service's endpoints.

use tower_mesh_core::{BoxError, Endpoint, Endpoints};
use tower_mesh_health::{
    CheckPolicy, CheckerBuilder, HealthChecker, Readmission, ServiceHealth, TcpCheck, Unhealthy,
};
use tower_mesh_http::{GrpcProbe, HttpEndpoints, HttpProbe, ProbeError};

use crate::{
    mesh::Core,
    policy::{Check, HealthPolicy},
    tasks::Held,
};

/// The checks of one service; dropped, none is under way, and nobody is out because of them.
///
/// Each service has its own, since each has its own policy.
#[derive(Debug)]
pub(crate) struct Checks {
    checker: HealthChecker,
    _checking: Held,
}

impl Checks {
    /// Begins to check these endpoints, which are called by `connect`, if `policy` says so.
    pub(crate) fn start(
        policy: &HealthPolicy,
        endpoints: &Endpoints,
        connect: &HttpEndpoints,
        core: &Core,
    ) -> Option<Self> {
        let (checker, driver) = builder(policy, connect)?
            .policy(check_policy(policy))
            .clock(core.clock.clone())
            .rng(core.rng.clone())
            .build();
        checker.watch(endpoints);
        Some(Self {
            checker,
            _checking: core.tasks.spawn_held(driver),
        })
    }

    /// What they have found.
    pub(crate) fn found(&self) -> Option<ServiceHealth> {
        self.checker.status().pop()
    }
}

fn builder(policy: &HealthPolicy, connect: &HttpEndpoints) -> Option<CheckerBuilder> {
    Some(match policy.check {
        Check::None => return None,
        Check::Tcp => HealthChecker::builder(TcpCheck::new()),
        Check::Http => {
            // A policy without a path is refused.
            let probe = HttpProbe::new(policy.path.clone()?).over(connect);
            asking(move |endpoint| probe.check(endpoint))
        }
        Check::Grpc => {
            let probe = GrpcProbe::new().service(&policy.grpc_service).over(connect);
            asking(move |endpoint| probe.check(endpoint))
        }
    })
}

fn asking<A>(ask: impl Fn(&Endpoint) -> A + Send + Sync + 'static) -> CheckerBuilder
where
    A: Future<Output = Result<(), ProbeError>> + Send + 'static,
{
    HealthChecker::builder(move |endpoint: Endpoint| {
        let answer = ask(&endpoint);
        async move { answer.await.map_err(believed) }
    })
}

/// What an endpoint says of itself counts at once.
fn believed(error: ProbeError) -> BoxError {
    if error.is_definite() {
        Unhealthy::new(&error.to_string()).into()
    } else {
        error.into()
    }
}

pub(crate) fn check_policy(policy: &HealthPolicy) -> CheckPolicy {
    CheckPolicy::default()
        .interval(policy.interval)
        .time_limit(policy.time_limit)
        .unhealthy_after(policy.unhealthy_after)
        .healthy_after(policy.healthy_after)
}

/// What lets an ejected endpoint come back. That a port answers says less than calls did.
pub(crate) fn readmission(policy: &HealthPolicy) -> Readmission {
    match policy.check {
        Check::None | Check::Tcp => Readmission::TimeAlone,
        Check::Http | Check::Grpc => Readmission::HealthyCheck,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;

    #[test]
    fn checks_are_made_as_their_own_defaults_say() {
        let policy = Policy::default().health;
        assert_eq!(check_policy(&policy), CheckPolicy::default());
    }
}
