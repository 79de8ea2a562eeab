//! Hedges.

mod attempts;
mod cancel;
mod cost;
mod fleet;
mod learned;
mod simulation;

use std::{num::NonZeroU32, pin::Pin, task::Poll, time::Duration};

use tokio_test::task::{Spawn, spawn};
use tower::{BoxError, Layer, Service};
use tower_mesh_core::{Clock, ManualClock, Ratio, Verdict};
use tower_mesh_retry::{Budget, Hedge, HedgeAfter, HedgeLayer};

use crate::script::{Script, Step, judge, ms};

type Judge = fn(Result<&u16, &(dyn std::error::Error + Send + Sync + 'static)>) -> Verdict;
type Answer = Result<u16, BoxError>;

pub(crate) fn attempts(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

/// Hedges on a clock that is moved by hand, with plenty in the budget.
struct Stage {
    clock: Clock,
    hand: ManualClock,
    budget: Budget,
}

impl Stage {
    fn new() -> Self {
        let (clock, hand) = Clock::manual();
        let budget = Budget::new(Ratio::ONE)
            .min_per_second(0)
            .burst(Duration::from_secs(10));
        (0..100).for_each(|_| budget.deposit(clock.now()));
        Self {
            clock,
            hand,
            budget,
        }
    }

    /// gRPC's `hedgingPolicy`.
    fn layer(
        &self,
        delay: Duration,
        most: u32,
    ) -> HedgeLayer<tower_mesh_core::CloneIdempotent, Judge> {
        HedgeLayer::new(self.budget.clone())
            .after(HedgeAfter::Fixed(delay))
            .attempts(attempts(most))
            .classify(judge as Judge)
            .clock(self.clock.clone())
    }

    fn script(&self, steps: impl IntoIterator<Item = Step>) -> Script {
        Script::on(self.clock.clone(), steps, None)
    }

    fn spent(&self) -> u64 {
        self.budget.snapshot(self.clock.now()).withdrawals
    }

    /// Polls `call` whenever it is woken, for so long; what it has answered, and when.
    fn run<F>(&self, call: &mut Spawn<Pin<Box<F>>>, time: Duration) -> Option<(Duration, F::Output)>
    where
        F: Future + ?Sized,
    {
        let mut passed = Duration::ZERO;
        let mut first = true;
        loop {
            if first || call.is_woken() {
                first = false;
                if let Poll::Ready(answer) = call.poll() {
                    return Some((passed, answer));
                }
            }
            if passed >= time {
                return None;
            }
            self.hand.advance(ms(10));
            passed += ms(10);
        }
    }

    /// One call, and when it was answered.
    fn call<S>(&self, service: &mut S, time: Duration) -> Option<(Duration, Answer)>
    where
        S: Service<&'static str, Response = u16, Error = BoxError>,
    {
        self.run(&mut spawn(Box::pin(service.call("a"))), time)
    }

    fn hedged(
        &self,
        layer: &HedgeLayer<tower_mesh_core::CloneIdempotent, Judge>,
        script: &Script,
    ) -> HedgedScript {
        layer.layer(script.clone())
    }
}

type HedgedScript =
    Hedge<tower_mesh_core::PerCall<Script>, tower_mesh_core::CloneIdempotent, Judge>;
