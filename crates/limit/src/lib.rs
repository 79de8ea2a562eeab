//! Bounds how many calls run at once and how long one may take.
//!
//! Layers, each of use alone on any tower service:
//!
//! - [`BulkheadLayer`]: at most so many calls run at once; one more is refused, or waits in a bounded queue. Its limit is
//!   fixed, or [adapts](adaptive) to what the service can bear.
//! - [`AdaptiveLimitLayer`]: the same for a service that has no endpoints to learn from.
//! - [`DeadlineLayer`]: a call that is not answered in time is ended, with an error that says where the time went.
//! - [`ThrottleLayer`]: a service that refuses most calls is called less.
//! - `RateLayer`, with the feature `rate`: at most so many calls a second.
//!
//! ```
//! use std::{convert::Infallible, num::NonZeroUsize, time::Duration};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_mesh_limit::{BulkheadLayer, DeadlineLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower::BoxError> {
//! let mut service = ServiceBuilder::new()
//!     // Outermost, so that the time a call waits for its permit counts.
//!     .layer(DeadlineLayer::new(Duration::from_secs(5)))
//!     .layer(BulkheadLayer::new(NonZeroUsize::new(100).unwrap()).queue(20))
//!     .service(service_fn(|name: &str| {
//!         let hello = format!("hello, {name}");
//!         async { Ok::<_, Infallible>(hello) }
//!     }));
//!
//! assert_eq!(service.ready().await?.call("mesh").await?, "hello, mesh");
//! # Ok(())
//! # }
//! ```
//!
//! # What happens to a request
//!
//! Both services are always ready and hold nothing between calls: all that a call needs is taken when its future is
//! first polled, and given back when that future is dropped, whatever state it is in. Each call gets a clone of the inner
//! service ([`PerCall`]), waits for that clone's readiness, calls it and drops it. So the wait for readiness counts
//! towards the deadline, and a clone of the service that lies idle keeps nobody waiting.
//!
//! A service that is always ready by itself, as all of tower-mesh's are, needs no clone: see [`BulkheadLayer::over`] and
//! [`DeadlineLayer::over`].
//!
//! # Differences from tower
//!
//! `tower::limit::ConcurrencyLimit` takes its permit in `poll_ready`: an idle connection that was once ready keeps it,
//! and there is no bound on who waits. `tower::timeout::Timeout` starts when the service is called, so the wait for
//! readiness is not bounded, and each has a timer of its own, made for every call. A permit of ours can last to the end
//! of a response's body ([`BulkheadLayer::completion`]), and however many layers wish to be woken, a call has one timer,
//! armed when it first has to wait.

pub mod adaptive;
mod bulkhead;
mod deadline;
#[cfg(feature = "rate")]
mod rate;
mod throttle;

#[cfg(feature = "rate")]
pub use self::rate::{Rate, RateFuture, RateLayer, RateLimited};
pub use self::{
    adaptive::{Adaptive, AdaptiveLimit, AdaptiveLimitLayer, AdaptiveSnapshot},
    bulkhead::{
        Bulkhead, BulkheadFuture, BulkheadHandle, BulkheadLayer, BulkheadSnapshot, Overloaded,
        Permit,
    },
    deadline::{Deadline, DeadlineExceeded, DeadlineFuture, DeadlineLayer},
    throttle::{
        Throttle, ThrottleFuture, ThrottleHandle, ThrottleLayer, ThrottleSnapshot, Throttled,
    },
};
pub use tower_mesh_core::{PerCall, PerCallFuture};
