//! Calls a balancer over N endpoints so and so often, for counting what one call costs:
//!
//! ```text
//! cargo build --profile bench --example one_call -p tower-mesh-balance
//! for calls in 2000 12000; do
//!     valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file=/dev/null one_call framed 1000 $calls
//! done
//! ```
//!
//! The difference of the two counts divided by 10,000 is one call. `bare` is the inner service alone, `alone` a balancer
//! by itself, `framed` one beneath other layers of the mesh, and `frame` what those do to begin with. `update` and
//! `replace` exchange one endpoint or all of them so and so often and say how long that took. Then a strategy, and `weights` for uneven ones.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tower_mesh_balance::{BalanceLayer, Strategy};
use tower_mesh_core::{
    Clock, Endpoint, Endpoints, Finish, Outcome, Resolution, Sampling, ServiceName, Shared, Weight,
    frame,
};

#[derive(Clone, Debug)]
struct Echo;

impl Service<u64> for Echo {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(black_box(request)))
    }
}

fn endpoint(number: usize) -> Endpoint {
    let [.., b, c, d] = (number as u32).to_be_bytes();
    Endpoint::new(([10, b, c, d], 80).into())
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut arg = |default: &str| args.next().unwrap_or_else(|| default.into());
    let mode = arg("framed");
    let number: usize = arg("1000").parse().expect("a number of endpoints");
    let calls: u64 = arg("12000").parse().expect("a number of calls");
    let strategy = match arg("best-of-three").as_str() {
        "peak-ewma" => Strategy::PeakEwma,
        "least-in-flight" => Strategy::LeastInFlight,
        "round-robin" => Strategy::RoundRobin,
        "weighted" => Strategy::Weighted,
        _ => Strategy::BestOfThree,
    };
    let weights = arg("even") == "weights";

    // Reading it costs what a cheap production clock does, and the same on every machine.
    let (clock, _) = Clock::manual();
    let set: Vec<_> = (0..number)
        .map(|i| endpoint(i).with_weight(Weight::new(if weights { 1 + i as u16 % 3 } else { 1 })))
        .collect();
    // Every endpoint has answered, as in a service that has run for a while.
    for endpoint in &set {
        let attempt = endpoint.vitals().attempt(&clock, Sampling::Peak);
        attempt.expect("an open gate").finish(Outcome::success());
    }
    let name = ServiceName::new("orders").expect("a valid name");
    let endpoints = Endpoints::fixed(name, set.clone());
    let mut balance = BalanceLayer::new(endpoints.clone())
        .strategy(strategy)
        .clock(clock.clone())
        .layer(Shared::new(Echo));

    match mode.as_str() {
        "bare" => repeat(calls, |i| complete(Echo.call(i))),
        "frame" => repeat(calls, |i| complete(Framed::new(&clock, Echo.call(i)))),
        "alone" => repeat(calls, |i| complete(balance.call(i))),
        "framed" => repeat(calls, |i| complete(Framed::new(&clock, balance.call(i)))),
        "update" => update(&endpoints, set, 1, calls),
        "replace" => update(&endpoints, set, number, calls),
        other => panic!("{other} is not bare, frame, alone, framed, update or replace"),
    }
}

fn repeat<T>(calls: u64, mut call: impl FnMut(u64) -> T) {
    for i in 0..calls {
        black_box(call(black_box(i)));
    }
}

fn complete<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("the inner service answers at once"),
    }
}

pin_project! {
    /// What the outermost layer of a mesh does.
    struct Framed<'a, F> {
        clock: &'a Clock,
        #[pin]
        call: frame::Call,
        #[pin]
        inner: F,
    }
}

impl<'a, F> Framed<'a, F> {
    fn new(clock: &'a Clock, inner: F) -> Self {
        let call = frame::Call::new();
        Self { clock, call, inner }
    }
}

impl<F: Future> Future for Framed<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        this.call
            .poll(this.clock, cx, |cx| this.inner.as_mut().poll(cx))
    }
}

/// Replaces so many endpoints of the set by new ones, so and so often.
fn update(endpoints: &Endpoints, mut set: Vec<Endpoint>, changes: usize, times: u64) {
    let clock = Clock::tokio();
    let mut took: Vec<_> = (0..times as usize)
        .map(|nth| {
            for change in 0..changes {
                let at = (nth * 7919 + change) % set.len();
                set[at] = endpoint(set.len() + nth * changes + change);
            }
            let new = set.clone();
            let start = clock.now();
            endpoints.publish(Resolution::Found, new);
            clock.now().since(start)
        })
        .collect();
    took.sort_unstable();
    println!(
        "an update took {:?}, at worst {:?}",
        took[took.len() / 2],
        took[took.len() - 1]
    );
}
