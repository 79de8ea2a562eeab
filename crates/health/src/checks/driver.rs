//! The future that makes checks.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tower_mesh_core::{Endpoint, ServiceName};

use crate::{
    checks::{checker::Shared, judge::HealthJudge, verdict::HealthState},
    outlier::OutlierJudge,
    probe::Failure,
    schedule::{Ended, Schedule},
};

/// Makes the checks of one [`HealthChecker`](crate::HealthChecker).
///
/// Spawn it, or poll it beside other work; nobody is checked until then. It ends when every handle is gone. A check that
/// panics or hangs has failed, and holds up no other.
///
/// # Cancel safety
///
/// When it is dropped, or ends, checks that are under way are dropped, and endpoints that were found unhealthy take
/// calls: nobody would ever find them well.
#[must_use = "nobody is checked until the driver is polled"]
pub struct HealthDriver {
    shared: Arc<Shared>,
    schedule: Schedule<u64, ()>,
    targets: HashMap<u64, Target>,
    /// Targets by the address of their endpoint's state, which they hold, so that it is nobody else's.
    known: HashMap<usize, u64>,
    next: u64,
}

struct Target {
    service: ServiceName,
    endpoint: Endpoint,
    /// The round in which a service named it last.
    seen: u64,
}

impl HealthDriver {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (clock, rng) = (shared.clock.clone(), shared.rng.clone());
        Self {
            schedule: Schedule::new(clock, rng, shared.policy.pace),
            shared,
            targets: HashMap::new(),
            known: HashMap::new(),
            next: 0,
        }
    }

    /// Begins with who is new, and lets go of who is no longer there.
    fn follow(&mut self) {
        self.next += 1;
        let round = self.next;
        for endpoints in self.shared.watched() {
            for endpoint in endpoints.current().endpoints() {
                self.see(endpoints.service(), endpoint, round);
            }
        }
        let gone = self
            .targets
            .iter()
            .filter(|(_, target)| target.seen != round);
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.schedule.remove(id);
            if let Some(target) = self.targets.remove(&id) {
                self.known.remove(&identity(&target.endpoint));
                target.let_go();
            }
        }
    }

    fn see(&mut self, service: &ServiceName, endpoint: &Endpoint, round: u64) {
        let id = self.known.get(&identity(endpoint)).copied();
        let known = id.and_then(|id| self.targets.get_mut(&id));
        if let Some(target) = known {
            target.seen = round;
            // It may be described anew.
            target.endpoint = endpoint.clone();
        } else if HealthJudge::attach(endpoint, &self.shared).is_some() {
            self.next += 1;
            let target = Target {
                service: service.clone(),
                endpoint: endpoint.clone(),
                seen: round,
            };
            self.known.insert(identity(endpoint), self.next);
            self.targets.insert(self.next, target);
            self.schedule.add(self.next);
        }
    }

    fn ended(&self, ended: &Ended<u64, ()>) {
        let Some(target) = self.targets.get(&ended.key) else {
            return;
        };
        let endpoint = &target.endpoint;
        let Some(judge) = HealthJudge::of(endpoint) else {
            return;
        };
        let thresholds = self.shared.policy.thresholds;
        let change = judge.take(&ended.answer, ended.took, ended.at, thresholds);
        if let Some((before, now)) = change {
            target.log(before, now, &ended.answer);
        }
        if ended.answer.is_ok() {
            let ejected = OutlierJudge::of(endpoint).filter(|judge| judge.until().is_some());
            if let Some(group) = ejected.and_then(OutlierJudge::group) {
                group.readmit_healthy(endpoint);
            }
        }
    }

    fn stop(&mut self) {
        for (id, target) in self.targets.drain() {
            self.schedule.remove(id);
            target.let_go();
        }
        self.known.clear();
    }
}

impl Target {
    fn let_go(&self) {
        if let Some(judge) = HealthJudge::of(&self.endpoint) {
            judge.let_go();
        }
    }

    fn log(&self, before: HealthState, now: HealthState, answer: &Result<(), Failure>) {
        let (service, endpoint) = (self.service.as_str(), self.endpoint.id());
        match answer {
            Err(failure) if now == HealthState::Unhealthy => {
                let error = &*failure.why;
                tracing::warn!(service, endpoint, error, "endpoint unhealthy");
            }
            // That all is well from the beginning is no news.
            _ if before == HealthState::Unhealthy => {
                tracing::info!(service, endpoint, "endpoint healthy again");
            }
            _ => {}
        }
    }
}

fn identity(endpoint: &Endpoint) -> usize {
    Arc::as_ptr(endpoint.vitals()).addr()
}

impl Future for HealthDriver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            let Some(changed) = this.shared.look(cx.waker()) else {
                this.stop();
                return Poll::Ready(());
            };
            if changed {
                this.follow();
            }
            let (targets, shared) = (&this.targets, &this.shared);
            let ended = this.schedule.poll(cx, |id| match targets.get(&id) {
                Some(target) => shared.check.check(&target.endpoint),
                None => unreachable!("only targets are scheduled"),
            });
            if ended.is_empty() {
                return Poll::Pending;
            }
            for ended in &ended {
                this.ended(ended);
            }
        }
    }
}

impl Drop for HealthDriver {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for HealthDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthDriver")
            .field("targets", &self.targets.len())
            .finish_non_exhaustive()
    }
}
