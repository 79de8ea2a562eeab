//! The mesh's client stack over a plain service, to be measured.
//!
//! `cargo run --profile bench -p tower-mesh-bench --bin calls -- --endpoints 1000 --calls 100000 [--pending]` makes calls
//! through it and prints nothing: run it beneath `valgrind --tool=callgrind` (with two numbers of calls, and take the
//! difference) to count instructions.

use std::{
    convert::Infallible,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tower::{Service, ServiceBuilder, layer::layer_fn};
use tower_mesh_balance::BalanceLayer;
use tower_mesh_breaker::BreakerLayer;
use tower_mesh_core::{BoxError, Clock, Endpoint, Layered, Resolution, ServiceName, Shared};
use tower_mesh_discovery::{Discovery, Static};
use tower_mesh_limit::{BulkheadLayer, DeadlineLayer};
use tower_mesh_retry::{Budget, RetryLayer};

/// A service that costs next to nothing: it answers its request, at once or the second time it is polled.
#[derive(Clone, Copy, Debug)]
pub enum Inner {
    /// Ready at once.
    Ready,
    /// Pending once, as every call over a network is.
    Pending,
}

/// The answer of [`Inner`].
#[derive(Debug)]
pub struct Answer {
    request: u64,
    pending: bool,
}

impl Service<u64> for Inner {
    type Response = u64;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Answer {
        Answer {
            request,
            pending: matches!(self, Self::Pending),
        }
    }
}

impl Future for Answer {
    type Output = Result<u64, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.pending) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(self.request))
    }
}

/// The stack of a service as the integrator stacks it, its own outermost layer and HTTP aside, once discovery has found
/// `endpoints` endpoints.
///
/// # Panics
///
/// Outside a tokio runtime.
pub async fn stack(
    endpoints: u32,
    inner: Inner,
    clock: Clock,
) -> impl Service<u64, Response = u64, Error = BoxError, Future: Send> + Clone {
    let service = ServiceName::new("orders").expect("a valid name");
    let addresses = (0..endpoints).map(|i| SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + i), 80)));
    let source = Static::new().service(service.clone(), addresses.map(Endpoint::new));
    let (discovery, driver) = Discovery::builder(source).clock(clock.clone()).build();
    #[allow(clippy::disallowed_methods)]
    // Nothing else runs here, and the process ends with the measurement.
    tokio::spawn(driver);
    let endpoints = discovery.endpoints(&service);
    assert_eq!(endpoints.resolved().await, Resolution::Found);
    let deadline = DeadlineLayer::new(Duration::from_secs(10)).clock(clock.clone());
    let bulkhead = BulkheadLayer::new(const { NonZeroUsize::new(1024).expect("not zero") })
        .clock(clock.clone());
    ServiceBuilder::new()
        .layer(layer_fn(|beneath| deadline.over(beneath)))
        .layer(discovery.layer(&service))
        .layer(layer_fn(|beneath| bulkhead.over(beneath)))
        .layer(
            RetryLayer::new(Budget::default())
                .per_try_timeout(Duration::from_secs(3))
                .clock(clock.clone()),
        )
        .layer(BalanceLayer::new(endpoints).clock(clock.clone()))
        .service(Layered::new(
            Shared::new(inner),
            BreakerLayer::default().clock(clock.clone()),
        ))
}
