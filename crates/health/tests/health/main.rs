//! Health as its users see it: endpoints that are ejected and checked, services alone, components.

#![cfg(not(mesh_loom))]

mod alone;
mod bounds;
mod checks;
mod components;
mod ejection;
mod ends;
mod flaws;
mod logs;
mod model;
mod restore;
mod terms;

use std::{
    future::Future,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio_test::task::{Spawn, spawn};
use tower_mesh_core::{
    Attempt, Clock, Endpoint, Endpoints, Finish, ManualClock, NewLayer, Outcome, Ratio, Resolution,
    Rng, Sampling, ServiceName, Standing,
};
use tower_mesh_health::{OutlierDriver, OutlierLayer, OutlierPolicy, OutlierSnapshot, Outliers};

const S: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const NONE: Duration = Duration::ZERO;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

fn orders() -> ServiceName {
    ServiceName::new("orders").expect("it is a name")
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint::new(([127, 0, 0, 1], port).into())
}

/// The default without chance.
fn steady() -> OutlierPolicy {
    OutlierPolicy::default().jitter(Ratio::ZERO)
}

/// The default without chance, and without failures in a row.
fn compared() -> OutlierPolicy {
    steady().consecutive_failures(None)
}

/// Lets time pass for `future`, timer by timer, and polls it whenever it is woken.
fn pass<F: Future + Unpin>(future: &mut Spawn<F>, time: &ManualClock, clock: &Clock, by: Duration) {
    let end = clock.now() + by;
    loop {
        while future.is_woken() {
            assert!(future.poll().is_pending(), "it has ended");
        }
        match time.next_timer() {
            Some(next) if next <= end => time.advance_to(next),
            _ => break,
        }
    }
    time.advance_to(end);
    while future.is_woken() {
        assert!(future.poll().is_pending(), "it has ended");
    }
}

/// The endpoints of one service on a clock that stands still, with a driver that runs.
struct World {
    clock: Clock,
    time: ManualClock,
    set: Endpoints,
    all: Vec<Endpoint>,
    layer: OutlierLayer,
    driver: Spawn<OutlierDriver>,
}

impl World {
    fn new(endpoints: u16, policy: OutlierPolicy) -> Self {
        let mut world = Self::asleep(endpoints, policy);
        assert!(world.driver.poll().is_pending());
        world
    }

    /// With a driver that has not been polled.
    fn asleep(endpoints: u16, policy: OutlierPolicy) -> Self {
        let (clock, time) = Clock::manual();
        let all: Vec<_> = (1..=endpoints).map(endpoint).collect();
        let set = Endpoints::fixed(orders(), all.clone());
        let (layer, driver) = OutlierLayer::builder(&set)
            .policy(policy)
            .clock(clock.clone())
            .rng(Rng::seeded(1))
            .build();
        for endpoint in &all {
            layer.layer_for(endpoint);
        }
        Self {
            clock,
            time,
            set,
            all,
            layer,
            driver: spawn(driver),
        }
    }

    fn outliers(&self) -> &Outliers {
        self.layer.handle()
    }

    fn snapshot(&self) -> OutlierSnapshot {
        self.outliers().snapshot()
    }

    fn pass(&mut self, by: Duration) {
        pass(&mut self.driver, &self.time, &self.clock, by);
    }

    /// A call to an endpoint that is under way, also if its gate is shut.
    fn attempt(&self, index: usize) -> Attempt {
        let vitals = self.all[index].vitals();
        let attempt = vitals.attempt_in_panic(self.clock.now(), &self.clock, Sampling::Mean);
        attempt.expect("there is no breaker")
    }

    fn end(&self, index: usize, outcome: Outcome, times: usize) {
        for _ in 0..times {
            self.attempt(index).finish(outcome);
        }
    }

    fn succeed(&self, index: usize, times: usize) {
        self.end(index, Outcome::success(), times);
    }

    fn fail(&self, index: usize, times: usize) {
        self.end(index, Outcome::failure(), times);
    }

    /// An interval in which each endpoint has 100 calls, `failing` all of them failures.
    fn interval(&mut self, failing: &[usize]) {
        for index in 0..self.all.len() {
            match failing.contains(&index) {
                true => self.fail(index, 100),
                false => self.succeed(index, 100),
            }
        }
        self.pass(10 * S);
    }

    fn is_ejected(&self, index: usize) -> bool {
        let gate = self.all[index].vitals().gate();
        gate.standing(|| self.clock.now()) != Standing::Open
    }

    fn ejected(&self) -> Vec<usize> {
        let all = 0..self.all.len();
        all.filter(|index| self.is_ejected(*index)).collect()
    }

    /// How long the ejection of an endpoint has to go.
    fn remaining(&self, index: usize) -> Option<Duration> {
        let snapshot = self.snapshot();
        let id = self.all[index].id();
        let ejection = snapshot.ejected.iter().find(|ejection| ejection.id == id)?;
        Some(ejection.until.since(snapshot.taken))
    }

    fn publish(&mut self, all: Vec<Endpoint>) {
        self.all.clone_from(&all);
        self.set.publish(Resolution::Found, all);
    }
}
