//! Spreads calls over the endpoints of a service, by latency, load and success.
//!
//! [`BalanceLayer`] wraps something that makes a service for each endpoint ([`NewService`](tower_mesh_core::NewService))
//! and gives one service, [`Balance`], for all of them.
//!
//! # What happens to a request
//!
//! [`Balance`] is always ready, and `call` only keeps the request. When the future is first polled, it
//!
//! 1. reads the endpoints as they are now: one atomic load of an immutable snapshot, whatever their number;
//! 2. picks one by the [`Strategy`]: by default the best of three random ones. An endpoint whose gate is shut (open
//!    breaker, ejected, unhealthy, draining) or whose weight is zero gets no call; one on probation gets its share of the
//!    calls offered as probes; one that this call has tried already comes last;
//! 3. clones that endpoint's service and polls it ready. If it is not ready at once, another is picked, at most twice;
//!    then the call waits for the first;
//! 4. calls it, and tells breaker, load and whoever judges the endpoint what became of it, once.
//!
//! An error comes back wrapped in [`AtEndpoint`](tower_mesh_core::AtEndpoint), which names the endpoint; if no endpoint
//! may take the call, [`NoEndpoint`] says at once how many there are and what keeps each from it.
//!
//! # Panic
//!
//! When more than [half](BalanceLayer::max_out) of the endpoints are out, or fewer than [one](BalanceLayer::min_healthy) is
//! left, it is more likely their judges who are wrong: a registry's checks that fail, a client that is starved and takes
//! its own slowness for theirs. A call then goes to unhealthy and ejected endpoints as if they were not; one with an open
//! breaker gets a probe before its time, at once if calls have opened it, after a failed one when it has been out for as
//! long again or for the first open time of its breaker, and never more at once than the breaker has places. So a healthy
//! fleet is back within a call, and a dead one gets a trickle; all other calls are refused at once, with the earliest time at which one will be let through.
//! Once some take calls, at most one call in twenty is such a probe of those that have failed one: the others would have
//! been answered.
//! Endpoints that drain, or whose breaker is forced open, get none and are not counted.
//!
//! # Priorities and zones
//!
//! Endpoints of the least [priority](tower_mesh_core::Endpoint::priority) take all calls while at least 5 of 7 of them are
//! healthy. Below that each healthy one is trusted with 1.4 times its share, and what is left goes to the next priority: of a
//! first one that is healthy by half, 30 %. Each priority panics for itself, and only if all of them together are healthy
//! too little. A retry goes to the next priority before it goes to an endpoint that the call has tried.
//!
//! Who says where it [runs](BalanceLayer::zone) prefers what is near in the same way: within a priority endpoints of its own
//! zone come first, then those of the same region, then all others. Where there are fewer than
//! [three](BalanceLayer::min_nearby) at one distance, they are joined with those that come next. Nobody knows how many
//! callers there are in a zone: where zones are of unequal size, a small one is not relieved by large ones before its
//! endpoints fail. Leave it off there, or join its endpoints with others by raising that number.
//!
//! # Slow start
//!
//! An endpoint that is added to others, or that a judge lets in again, takes a tenth of its share at first and all of it
//! after [30 s](SlowStart); it starts with the median latency of its peers. Without that the clients of a service, who do
//! not know of each other, all send it more than it can do.
//!
//! # Subsets
//!
//! Of many endpoints each of many clients may [call some only](Subset): fewer connections, and each client makes enough
//! calls of one to know how it is. Off unless said.
//!
//! # Changes of the endpoints
//!
//! A change of the endpoints costs whoever publishes it, never a caller. Endpoints that stay keep their service, with
//! its connections; one that is removed gets no new calls, and those in flight finish.
//!
//! # Differences from tower
//!
//! `tower::balance::p2c::Balance` is not `Clone`: shared, it needs a `Buffer`, whose worker costs every call two
//! allocations, does not scale with threads and dies for good of one panic or one error of discovery. It waits for ever
//! when there are no endpoints, drops an endpoint whose readiness fails once, and its peak-EWMA takes a fast failure for
//! a fast answer, so an endpoint that fails draws traffic. Here there is no worker and no lock between caller and
//! endpoint, and failures are counted against an endpoint and kept out of its latency.
//!
//! # Example
//!
//! ```
//! use std::convert::Infallible;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_mesh_balance::BalanceLayer;
//! use tower_mesh_core::{Endpoint, Endpoints, ServiceName, Shared};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower::BoxError> {
//! let endpoints = Endpoints::fixed(
//!     ServiceName::new("orders")?,
//!     [8080, 8081, 8082].map(|port| Endpoint::new(([10, 0, 0, 1], port).into())),
//! );
//! let mut orders = ServiceBuilder::new()
//!     .layer(BalanceLayer::new(endpoints))
//!     // One client for all of them; `|endpoint: &Endpoint| ...` makes one for each.
//!     .service(Shared::new(service_fn(async |order: u32| {
//!         Ok::<_, Infallible>(format!("order {order}"))
//!     })));
//!
//! assert_eq!(orders.ready().await?.call(42).await?, "order 42");
//! # Ok(())
//! # }
//! ```

mod attempt;
mod error;
mod explain;
mod future;
mod hash;
mod layer;
mod levels;
#[cfg(all(test, mesh_loom))]
mod loom_models;
mod panic;
mod pick;
mod pool;
mod search;
mod service;
mod slow_start;
mod snapshot;
mod strategy;
mod subset;
mod table;

pub use self::{
    error::{NoEndpoint, Reason},
    explain::{EndpointNow, Explanation, LevelNow, Takes},
    future::ResponseFuture,
    hash::{HashBy, Hashed, Hashing, KeyOf},
    layer::BalanceLayer,
    service::Balance,
    slow_start::SlowStart,
    strategy::Strategy,
    subset::Subset,
};
