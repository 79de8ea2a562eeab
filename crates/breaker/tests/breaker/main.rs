//! The breaker as its users see it: on endpoints, around services, by key.

#![cfg(not(mesh_loom))]

mod calls;
mod changes;
mod contract;
mod cost;
mod endpoints;
mod events;
mod hostile;
mod model;
mod panic;
mod peers;
mod registry;

use std::{future::pending, io, num::NonZeroU32, time::Duration};

use futures_util::FutureExt;
use tower::{Service, service_fn};
use tower_mesh_breaker::{BreakerLayer, Policy};
use tower_mesh_core::{
    Attempt, BoxError, Clock, Endpoint, Finish, ManualClock, NewLayer, Outcome, Ratio, Sampling,
    Shut,
};

const S: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// Opens after this many failures in a row and for no other reason, for exactly one second at first.
fn after(failures: u32) -> Policy {
    Policy::default()
        .consecutive_failures(NonZeroU32::new(failures))
        .failure_rate(None)
        .jitter(Ratio::ZERO)
}

/// Requests that say what becomes of them.
#[derive(Clone, Debug)]
enum Ask {
    Succeed,
    Fail,
    Hang,
    Panic,
    Take(Duration, ManualClock),
}

async fn answer(ask: Ask) -> Result<&'static str, io::Error> {
    match ask {
        Ask::Succeed => Ok("done"),
        Ask::Fail => Err(io::Error::other("down")),
        Ask::Hang => pending().await,
        Ask::Panic => panic!("a bug in the service"),
        Ask::Take(time, clock) => {
            clock.advance(time);
            Ok("done at last")
        }
    }
}

/// A service that does as it is asked, behind a breaker.
fn service(
    layer: &BreakerLayer,
) -> impl Service<Ask, Response = &'static str, Error = BoxError, Future: Send> + Clone + use<> {
    tower::Layer::layer(layer, service_fn(answer))
}

/// The answer to a call that ends when it is first polled.
fn ask<S: Service<Ask>>(service: &mut S, ask: Ask) -> Result<S::Response, S::Error> {
    service.call(ask).now_or_never().expect("it ends at once")
}

/// An endpoint with a breaker under a clock that stands still, and no balancer.
struct Target {
    endpoint: Endpoint,
    layer: BreakerLayer,
    clock: Clock,
    time: ManualClock,
}

impl Target {
    fn new(policy: Policy) -> Self {
        let (clock, time) = Clock::manual();
        let layer = BreakerLayer::new(policy).clock(clock.clone());
        let endpoint = Endpoint::new(([127, 0, 0, 1], 80).into());
        layer.layer_for(&endpoint);
        Self {
            endpoint,
            layer,
            clock,
            time,
        }
    }

    fn breaker(&self) -> tower_mesh_breaker::Breaker {
        let breaker = self.layer.breaker(&self.endpoint);
        breaker.expect("a layer was made for it")
    }

    fn attempt(&self) -> Result<Attempt, Shut> {
        self.endpoint.vitals().attempt(&self.clock, Sampling::Mean)
    }

    fn attempt_in_panic(&self) -> Result<Attempt, Shut> {
        let vitals = self.endpoint.vitals();
        vitals.attempt_in_panic(self.clock.now(), &self.clock, Sampling::Mean)
    }

    /// A call that is admitted and ends with `outcome` after `time`.
    fn call(&self, outcome: Outcome, time: Duration) {
        let mut attempt = self.attempt().expect("it is admitted");
        self.time.advance(time);
        attempt.finish(outcome);
    }

    fn fail(&self) {
        self.call(Outcome::failure(), Duration::ZERO);
    }

    fn succeed(&self) {
        self.call(Outcome::success(), Duration::ZERO);
    }
}
