//! Calls one of several stacks again and again, so that valgrind can count what a call costs:
//!
//! ```sh
//! CASE=mesh-retry cargo build --profile bench -p tower-mesh-retry --example retry_cost
//! for calls in 10000 20000; do
//!   valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/retry_cost $calls
//! done
//! ```
//!
//! What a call costs is the difference of the two counts, divided by 10,000; what retry costs is the difference between
//! two cases. `CASE` is read when the program is built, so that each case is a program of its own: the same source costs
//! more or less with what else is in the program. The clock stands still and costs next to nothing.

use std::{
    future::{Future, Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_mesh_core::{BoxError, Clock, Ratio, frame};
use tower_mesh_retry::{Budget, RetryLayer};
use tower_service::Service;

const CASE: &str = match option_env!("CASE") {
    Some(case) => case,
    None => "",
};

fn main() {
    let calls = std::env::args().nth(1).and_then(|n| n.parse().ok());
    let calls = calls.unwrap_or(10_000);
    let (clock, _hand) = Clock::manual();
    let retry = RetryLayer::default().clock(clock.clone());
    let per_try = retry.clone().per_try_timeout(Duration::from_secs(1));
    let all = Budget::new(Ratio::ONE).min_per_second(u32::MAX);
    let failing = RetryLayer::new(all).clock(clock.clone());
    let mesh = MeshLayer(clock.clone());
    let inner = Inner::default();

    match CASE {
        "bare" => run(inner, calls),
        "retry" => run(retry.layer(inner), calls),
        "mesh" => run(mesh.layer(inner), calls),
        "mesh-clone" => run(mesh.layer(PerCall(inner)), calls),
        "mesh-retry" => run(mesh.layer(retry.layer(inner)), calls),
        "mesh-per-try" => run(mesh.layer(per_try.layer(inner)), calls),
        "mesh-failing" => run(mesh.layer(failing.layer(Failing)), calls),
        "deposit" => deposit(&Budget::default(), &clock, calls),
        _ => eprintln!("the cases stand in the source"),
    }
}

#[inline(never)]
fn run<S: Service<u64>>(mut service: S, calls: u64) {
    let mut cx = Context::from_waker(Waker::noop());
    for request in 0..calls {
        black_box(service.poll_ready(&mut cx).is_ready());
        let mut response = pin!(service.call(black_box(request)));
        black_box(response.as_mut().poll(&mut cx).is_ready());
    }
}

#[inline(never)]
fn deposit(budget: &Budget, clock: &Clock, calls: u64) {
    let now = clock.now();
    for _ in 0..calls {
        black_box(budget).deposit(black_box(now));
    }
}

/// The service beneath: its clone counts a reference, as that of a real one does.
#[derive(Clone, Default)]
struct Inner(Arc<()>);

impl Service<u64> for Inner {
    type Response = u64;
    type Error = BoxError;
    type Future = Ready<Result<u64, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        black_box(&self.0);
        ready(Ok(request))
    }
}

#[derive(Clone)]
struct Failing;

impl Service<u64> for Failing {
    type Response = u64;
    type Error = BoxError;
    type Future = Ready<Result<u64, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u64) -> Self::Future {
        ready(Err("failed".into()))
    }
}

/// Clones its inner service for each call, as whatever moves a service into a future does.
struct PerCall(Inner);

impl Service<u64> for PerCall {
    type Response = u64;
    type Error = BoxError;
    type Future = Cloned;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Cloned {
        Cloned(self.0.clone(), request)
    }
}

struct Cloned(Inner, u64);

impl Future for Cloned {
    type Output = Result<u64, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let request = self.1;
        pin!(self.0.call(request)).poll(cx)
    }
}

/// Opens a frame, as the outermost layer of the mesh does.
struct MeshLayer(Clock);

struct Mesh<S> {
    inner: S,
    clock: Clock,
}

pin_project! {
    struct MeshFuture<F> {
        #[pin]
        inner: F,
        clock: Clock,
        #[pin]
        call: frame::Call,
    }
}

impl<S> Layer<S> for MeshLayer {
    type Service = Mesh<S>;

    fn layer(&self, inner: S) -> Mesh<S> {
        let clock = self.0.clone();
        Mesh { inner, clock }
    }
}

impl<S: Service<u64>> Service<u64> for Mesh<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = MeshFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: u64) -> Self::Future {
        MeshFuture {
            inner: self.inner.call(request),
            clock: self.clock.clone(),
            call: frame::Call::new(),
        }
    }
}

impl<F: Future> Future for MeshFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let (mut inner, clock) = (this.inner, &*this.clock);
        this.call.poll(clock, cx, |cx| {
            black_box(frame::now(clock));
            inner.as_mut().poll(cx)
        })
    }
}
