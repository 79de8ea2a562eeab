//! Counts the instructions of a call: one case, so many times.
//!
//! ```text
//! cargo build --profile bench -p tower-mesh-breaker --example cost
//! for n in 10000 20000; do
//!     valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/cost service $n
//! done
//! ```
//!
//! A tenth of a thousandth of the difference is what one call takes. The clock is one that costs nothing to read, so
//! that what is counted is ours; `service` less `bare` is the breaker alone, `judged` less `attempt` is what it adds to
//! a call that a balancer makes.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    num::NonZeroU16,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tower::{Layer, Service};
use tower_mesh_breaker::{BreakerLayer, Policy, Window};
use tower_mesh_core::{Clock, Endpoint, Finish, NewLayer, Outcome, Ratio, Sampling};

fn main() {
    let mut args = std::env::args().skip(1);
    let case = args.next().unwrap_or_default();
    let calls = args.next().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let (clock, _time) = Clock::manual();
    let layer = |policy| BreakerLayer::new(policy).clock(clock.clone());
    match case.as_str() {
        "bare" => run(calls, Echo),
        "service" => run(calls, layer(Policy::default()).layer(Echo)),
        "service-slow" => run(calls, layer(slow()).layer(Echo)),
        "service-last-100" => run(calls, layer(last_100()).layer(Echo)),
        "service-tokio-clock" => run(calls, BreakerLayer::default().layer(Echo)),
        "attempt" => attempts(calls, &clock, |_| {}),
        "judged" => attempts(calls, &clock, judge(layer(Policy::default()))),
        "judged-slow" => attempts(calls, &clock, judge(layer(slow()))),
        "judged-last-100" => attempts(calls, &clock, judge(layer(last_100()))),
        "judged-row" => {
            let only_in_a_row = Policy::default().failure_rate(None);
            attempts(calls, &clock, judge(layer(only_in_a_row)));
        }
        _ => eprintln!(
            "cost bare|service[-slow|-last-100|-tokio-clock]|attempt|judged[-slow|-last-100|-row] [CALLS]"
        ),
    }
}

fn slow() -> Policy {
    Policy::default().slow_calls(Duration::from_secs(1), Ratio::percent(50))
}

fn last_100() -> Policy {
    Policy::default().window(Window::last(NonZeroU16::MIN.saturating_add(99)))
}

fn judge(layer: BreakerLayer) -> impl FnOnce(&Endpoint) {
    move |endpoint| {
        layer.layer_for(endpoint);
    }
}

#[derive(Clone)]
struct Echo;

impl Service<u64> for Echo {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

#[inline(never)]
fn run(calls: u64, mut service: impl Service<u64>) {
    let mut cx = Context::from_waker(Waker::noop());
    for call in 0..calls {
        let _ = black_box(service.poll_ready(&mut cx));
        let response = pin!(service.call(black_box(call)));
        let _ = black_box(response.poll(&mut cx));
    }
}

#[inline(never)]
fn attempts(calls: u64, clock: &Clock, prepare: impl FnOnce(&Endpoint)) {
    let endpoint = Endpoint::new(([127, 0, 0, 1], 80).into());
    prepare(&endpoint);
    let vitals = black_box(endpoint.vitals());
    for _ in 0..calls {
        if let Ok(mut attempt) = vitals.attempt(clock, Sampling::Mean) {
            attempt.finish(black_box(Outcome::success()));
        }
    }
}
