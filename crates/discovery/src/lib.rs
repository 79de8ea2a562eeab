//! Finds the endpoints of a service, and keeps them when the registry does not answer.
//!
//! A [`Discovery`] asks a source ([`Resolve`](tower_mesh_core::Resolve): [`MemoryRegistry`], [`Static`], [`Preferred`],
//! `File` with the feature of that name, Consul, a registry of your own) and publishes what it learns as [`Endpoints`](tower_mesh_core::Endpoints), from which
//! balancers pick. Its [`Driver`] does all the work, so no call waits for the registry but the very first.
//!
//! # What happens to a request
//!
//! The service that [`DiscoveryLayer`] makes looks whether the registry has said something of the service.
//!
//! - It has: the call passes, at the cost of one atomic load and no allocation.
//! - Nothing yet: the call waits, until its deadline, or 5 s if it has none, and then fails with [`Unresolved`]. A
//!   thousand first callers share one look-up, and one that goes away cancels nothing.
//! - There is no such service: it fails at once with [`ServiceNotFound`].
//!
//! # What happens to an update
//!
//! - An endpoint is its id and its address. What stays keeps its place, its state and so its connections, even if it is
//!   described anew; what goes is drained; what comes back starts afresh. An update that changes nothing is not
//!   published.
//! - Of two endpoints with one id, or one address, the one named last wins; addresses at which nothing can listen
//!   (port 0, unspecified, multicast) are dropped. Both are logged and counted.
//! - An error of the source changes nothing but the [status](Discovery::status), which shows it beside the age of the
//!   last answer. A source that ends or panics is asked again after 1 s to 30 s.
//! - An empty answer is obeyed if the source is an authority. Otherwise it is held against for
//!   [`empty_grace`](Builder::empty_grace), like one that loses more than half of the endpoints.
//! - A [`Filter`] keeps endpoints from callers by health, tag and metadata.
//!
//! # When to use it
//!
//! Beneath everything that is per service, directly above the balancer; or alone, as here, to make a client wait for
//! the registry instead of failing while both start.
//!
//! # Differences from tower
//!
//! tower's [`Discover`](tower::discover::Discover) is a stream that one balancer consumes: a second balancer needs a
//! second look-up, one error ends it for good, and while it is silent a call waits for ever. Here any number of
//! balancers read one set, errors change nothing, and waiting has a limit. For tower's own balancer there is
//! [`Discovery::changes`].
//!
//! # Example
//!
//! ```
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_mesh_core::{BoxError, Endpoint, ServiceName};
//! use tower_mesh_discovery::{Discovery, Static};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let name = ServiceName::new("orders")?;
//! let source = Static::new().service(&name, [Endpoint::new(([10, 0, 0, 7], 8080).into())]);
//! let (discovery, driver) = Discovery::builder(source).build();
//! tokio::spawn(driver);
//!
//! let layer = discovery.layer(&name);
//! let endpoints = layer.endpoints().clone();
//! let orders = ServiceBuilder::new().layer(layer).service(service_fn(move |order: u32| {
//!     let address = endpoints.current().endpoints()[0].address();
//!     async move { Ok::<_, BoxError>(format!("order {order} from {address}")) }
//! }));
//! assert_eq!(orders.oneshot(42).await?, "order 42 from 10.0.0.7:8080");
//! # Ok(())
//! # }
//! ```

mod backoff;
mod builder;
mod changes;
mod discovery;
mod driver;
mod error;
mod faults;
#[cfg(feature = "file")]
mod file;
mod filter;
mod fixed;
mod follow;
mod future;
mod hold;
mod idle;
mod layer;
mod preferred;
mod service;
mod shared;
mod source;
mod status;
mod table;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;
mod watch;

pub use tower_mesh_core::MemoryRegistry;

#[cfg(feature = "file")]
pub use self::file::File;
pub use self::{
    builder::Builder,
    changes::Changes,
    discovery::Discovery,
    driver::Driver,
    error::{ServiceNotFound, Unresolved},
    filter::Filter,
    fixed::Static,
    future::ResponseFuture,
    layer::DiscoveryLayer,
    preferred::Preferred,
    service::Discovered,
    status::ServiceStatus,
};
