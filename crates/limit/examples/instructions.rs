//! Calls one of several stacks again and again, so that valgrind can count what a call costs:
//!
//! ```sh
//! export CASE=mesh-both-over
//! cargo build --profile bench -p tower-mesh-limit --example instructions
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/instructions $CASE 10000
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/instructions $CASE 20000
//! ```
//!
//! What a call costs is the difference of two counts, divided by that of the calls; what a layer costs is the difference
//! between two stacks. Built with `CASE` the binary holds that case only: what else is in a binary moves the counts by
//! fifty. The clock stands still and costs next to nothing, except where a case says `tokio`.

use std::{
    convert::Infallible,
    future::Future,
    hint::black_box,
    num::NonZeroUsize,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower::{limit::ConcurrencyLimitLayer, timeout::TimeoutLayer};
use tower_layer::Layer;
use tower_mesh_core::{Clock, frame};
use tower_mesh_limit::{BulkheadLayer, DeadlineLayer};
use tower_service::Service;

fn main() {
    let mut args = std::env::args().skip(1);
    let case = args.next().unwrap_or_default();
    let calls = args.next().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime with nothing but timers");
    let _entered = runtime.enter();

    let (clock, _) = Clock::manual();
    let limit = NonZeroUsize::new(100).expect("is not zero");
    let bulkhead = BulkheadLayer::new(limit).clock(clock.clone());
    let deadline = DeadlineLayer::new(Duration::from_secs(1)).clock(clock.clone());
    let tokio = DeadlineLayer::new(Duration::from_secs(1));
    let mesh = MeshLayer(clock);
    let (ready, pending) = (Inner::default(), Inner::pending_once());

    match option_env!("CASE").unwrap_or(&case) {
        "bare" => run(ready, calls),
        "bulkhead" => run(bulkhead.layer(ready), calls),
        "bulkhead-over" => run(bulkhead.over(ready), calls),
        "deadline" => run(deadline.layer(ready), calls),
        "deadline-over" => run(deadline.over(ready), calls),
        "deadline-tokio" => run(tokio.layer(ready), calls),
        "mesh" => run(mesh.layer(ready), calls),
        "mesh-bulkhead" => run(mesh.layer(bulkhead.layer(ready)), calls),
        "mesh-bulkhead-over" => run(mesh.layer(bulkhead.over(ready)), calls),
        "mesh-deadline" => run(mesh.layer(deadline.layer(ready)), calls),
        "mesh-deadline-over" => run(mesh.layer(deadline.over(ready)), calls),
        "mesh-both" => run(mesh.layer(deadline.layer(bulkhead.layer(ready))), calls),
        "mesh-both-over" => {
            let both = deadline.over(bulkhead.over(ready));
            run(mesh.layer(both), calls);
        }
        "bare-pending" => run(pending, calls),
        "bulkhead-pending" => run(bulkhead.layer(pending), calls),
        "deadline-pending" => run(deadline.layer(pending), calls),
        "deadline-pending-tokio" => run(tokio.layer(pending), calls),
        "tower-limit" => run(ConcurrencyLimitLayer::new(100).layer(ready), calls),
        "tower-timeout" => run(
            TimeoutLayer::new(Duration::from_secs(1)).layer(ready),
            calls,
        ),
        "tower-timeout-pending" => run(
            TimeoutLayer::new(Duration::from_secs(1)).layer(pending),
            calls,
        ),
        _ => eprintln!("the cases stand in the source"),
    }
}

#[inline(never)]
fn run<S: Service<u64>>(mut service: S, calls: u64) {
    let mut cx = Context::from_waker(Waker::noop());
    for request in 0..calls {
        black_box(service.poll_ready(&mut cx).is_ready());
        let mut response = pin!(service.call(black_box(request)));
        while black_box(response.as_mut().poll(&mut cx)).is_pending() {}
    }
}

/// The plain service beneath: its clone counts a reference, as that of a real one does.
#[derive(Clone, Default)]
struct Inner {
    shared: Arc<()>,
    pending: bool,
}

impl Inner {
    fn pending_once() -> Self {
        Self {
            pending: true,
            ..Self::default()
        }
    }
}

struct Answer {
    pending: bool,
    value: u64,
}

impl Service<u64> for Inner {
    type Response = u64;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        black_box(&self.shared);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, value: u64) -> Answer {
        let pending = self.pending;
        Answer { pending, value }
    }
}

impl Future for Answer {
    type Output = Result<u64, Infallible>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match std::mem::take(&mut self.pending) {
            true => Poll::Pending,
            false => Poll::Ready(Ok(self.value)),
        }
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
