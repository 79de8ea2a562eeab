//! Endpoints whose checks do as they are told.

use std::{
    future::{Future, pending},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
};

use tokio_test::task::{Spawn, spawn};
use tower_mesh_core::{
    Availability, BoxError, Clock, Endpoint, Endpoints, ManualClock, Ratio, Rng,
};
use tower_mesh_health::{
    CheckPolicy, EndpointHealth, HealthChecker, HealthDriver, HealthState, Unhealthy,
};

use crate::{NONE, endpoint, lock, orders};

/// What a check does, by port.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Does {
    Succeed,
    Fail,
    Say,
    Panic,
    PanicAtOnce,
    Hang,
}

#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) does: Arc<Mutex<Vec<Does>>>,
    pub(crate) asked: Arc<Mutex<Vec<u16>>>,
    pub(crate) running: Arc<AtomicUsize>,
    pub(crate) most: Arc<AtomicUsize>,
}

/// Counts a check as running until it is dropped.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What is known of an endpoint that is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) healthy: bool,
    pub(crate) checks: u64,
}

/// So many ticks of tower-resilience's loop: all checks at once, in tasks of their own whose panics are nobody's, and no next
/// tick until each of them has ended.
pub(crate) fn together(script: &Script, ticks: usize) -> [Seen; 3] {
    let mut seen = [Seen {
        healthy: true,
        checks: 0,
    }; 3];
    for _ in 0..ticks {
        let mut checks = [1, 2, 3].map(|port| spawn(script.check(&endpoint(port))));
        let ended = checks.each_mut().map(|check| {
            catch_unwind(AssertUnwindSafe(|| check.poll())).map_or(Poll::Ready(None), |polled| {
                polled.map(|answer| Some(answer.is_ok()))
            })
        });
        for (seen, ended) in seen.iter_mut().zip(&ended) {
            if let Poll::Ready(Some(healthy)) = ended {
                (seen.healthy, seen.checks) = (*healthy, seen.checks + 1);
            }
        }
        if ended.iter().any(Poll::is_pending) {
            return seen;
        }
    }
    seen
}

impl Script {
    pub(crate) fn new(endpoints: u16) -> Self {
        Self {
            does: Arc::new(Mutex::new(vec![Does::Succeed; endpoints.into()])),
            asked: Arc::default(),
            running: Arc::default(),
            most: Arc::default(),
        }
    }

    pub(crate) fn now(&self, port: u16, does: Does) {
        lock(&self.does)[usize::from(port) - 1] = does;
    }

    pub(crate) fn check(
        &self,
        endpoint: &Endpoint,
    ) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> {
        let port = endpoint.address().port();
        lock(&self.asked).push(port);
        let does = lock(&self.does)[usize::from(port) - 1];
        assert_ne!(does, Does::PanicAtOnce, "a bug in the check");
        let now = self.running.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(now, Relaxed);
        let running = Running(Arc::clone(&self.running));
        Box::pin(async move {
            let _running = running;
            match does {
                Does::Succeed => Ok(()),
                Does::Fail => Err("connection refused".into()),
                Does::Say => Err(Unhealthy::new("503: migrating").into()),
                Does::Panic => panic!("a bug in the check"),
                Does::Hang | Does::PanicAtOnce => pending().await,
            }
        })
    }
}

pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) time: ManualClock,
    pub(crate) set: Endpoints,
    pub(crate) script: Script,
    pub(crate) checker: HealthChecker,
    pub(crate) driver: Spawn<HealthDriver>,
}

/// Checks each endpoint every ten seconds exactly, from now on.
pub(crate) fn exact() -> CheckPolicy {
    CheckPolicy::default()
        .jitter(Ratio::ZERO)
        .first_within(NONE)
}

impl World {
    pub(crate) fn new(endpoints: u16, policy: CheckPolicy) -> Self {
        let (clock, time) = Clock::manual();
        let set = Endpoints::fixed(orders(), (1..=endpoints).map(endpoint));
        let script = Script::new(endpoints);
        let asked = script.clone();
        let (checker, driver) =
            HealthChecker::builder(move |endpoint: Endpoint| asked.check(&endpoint))
                .policy(policy)
                .clock(clock.clone())
                .rng(Rng::seeded(3))
                .build();
        checker.watch(&set);
        let mut world = Self {
            clock,
            time,
            set,
            script,
            checker,
            driver: spawn(driver),
        };
        assert!(world.driver.poll().is_pending());
        world
    }

    pub(crate) fn pass(&mut self, by: std::time::Duration) {
        crate::pass(&mut self.driver, &self.time, &self.clock, by);
    }

    pub(crate) fn now(&self, port: u16, does: Does) {
        self.script.now(port, does);
    }

    pub(crate) fn health(&self) -> Vec<EndpointHealth> {
        self.checker.status().remove(0).endpoints
    }

    pub(crate) fn states(&self) -> Vec<HealthState> {
        self.health().iter().map(|health| health.state).collect()
    }

    pub(crate) fn seen(&self) -> [Seen; 3] {
        let health = self.health();
        [0, 1, 2].map(|index| Seen {
            healthy: health[index].state == HealthState::Healthy,
            checks: health[index].checks,
        })
    }

    pub(crate) fn is_out(&self, index: usize) -> bool {
        let set = self.set.current();
        let gate = set.endpoints()[index].vitals().gate();
        assert_eq!(gate.is_open(), gate.admit(self.clock.now()).is_ok());
        gate.availability() == Availability::Out
    }

    pub(crate) fn asked(&self) -> Vec<u16> {
        std::mem::take(&mut *lock(&self.script.asked))
    }

    pub(crate) fn running(&self) -> usize {
        self.script.running.load(Relaxed)
    }
}
