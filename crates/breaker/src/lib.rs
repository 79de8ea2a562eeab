//! Stops calling an endpoint or a service that keeps failing, and finds out with a few calls when it is well again.
//!
//! # What happens to a request
//!
//! While the breaker is **closed**, every call goes through and its outcome is counted. When too many calls in a row
//! fail, or too large a share of the latest calls fails or is slow, it **opens**: calls are refused at once, with the
//! time after which to come back. When that time is over it is **half-open**: a few calls go out as probes, all others
//! are refused. If the probes come back well it closes, through a ramp if there is one; if not, it is open for twice as
//! long. [`Policy`] has the numbers, and where they are from.
//!
//! A balancer that finds most endpoints out does not believe all their breakers: it may ask for a probe before the open
//! time is over. What calls have opened gives one at once; after a probe that has failed the next is due when the endpoint
//! has been out for as long again, at most the first open time. There are no more places for that than for any probe, and
//! an early one that fails lengthens nothing.
//!
//! A call that its caller gives up says nothing of the service; if it was a probe, another takes its place. A call that
//! the mesh itself gives up because its time is over has failed, and so has one that panics. What a call reports that
//! began before the last transition changes nothing: late successes do not close it, late failures do not open it
//! again.
//!
//! # When to use it
//!
//! - **For each endpoint of a balancer**: [`BreakerLayer`] is a `NewLayer` for endpoints. It adds no service; it judges
//!   the endpoint at its gate, so the balancer sends calls elsewhere and no caller sees an error.
//! - **For a service as a whole**, in front of anything that is a [`tower::Service`]: [`BreakerLayer`] is a
//!   [`tower::Layer`], and callers get [`Open`] at once instead of waiting for the next failure. Put timeouts beneath
//!   it: a layer above that is not the mesh's own cannot be told from a caller who went away.
//! - **For each tenant, route, …**: [`CircuitBreakerRegistry`].
//!
//! # Differences from …
//!
//! Tower has no breaker. `tower::load_shed` and `tower::limit` refuse what exceeds a limit and know nothing of outcomes.
//!
//! # Example
//!
//! ```
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_mesh_breaker::{BreakerLayer, Open, Policy, State};
//! use std::num::NonZeroU32;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let layer = BreakerLayer::new(Policy::default().consecutive_failures(NonZeroU32::new(3)))
//!     .name("orders");
//! let breaker = layer.handle().clone();
//!
//! let mut orders = ServiceBuilder::new()
//!     .layer(layer)
//!     .service_fn(|_: u32| async { Err::<(), _>(std::io::Error::other("down")) });
//!
//! for id in 0..3 {
//!     assert!(orders.ready().await.unwrap().call(id).await.unwrap_err().is::<std::io::Error>());
//! }
//! assert_eq!(breaker.state(), State::Open);
//!
//! let error = orders.ready().await.unwrap().call(3).await.unwrap_err();
//! let open: &Open = error.downcast_ref().unwrap();
//! assert!(open.retry_after().is_some());
//! assert_eq!(breaker.snapshot().rejected, 1);
//! # }
//! ```
//!
//! # Cost
//!
//! A healthy call takes no lock and allocates nothing: admission is one load, the report one compare-exchange for each
//! rate and one load for the failures in a row. State is of fixed size, whatever the number of calls.

mod breaker;
mod circuit;
mod epoch;
mod error;
mod future;
mod judge;
mod layer;
#[cfg(all(test, mesh_loom))]
mod models;
mod permit;
mod phase;
mod policy;
mod registry;
mod run;
mod service;
mod settings;
mod snapshot;
mod transition;
mod window;

pub use self::{
    breaker::Breaker,
    error::{CountsOtherwise, Open},
    future::ResponseFuture,
    layer::BreakerLayer,
    permit::Permit,
    phase::State,
    policy::Policy,
    registry::{CircuitBreakerRegistry, RegistryFull},
    service::CircuitBreaker,
    snapshot::Snapshot,
    transition::{Missed, Reason, Transition, Transitions},
    window::{Tally, Window},
};
