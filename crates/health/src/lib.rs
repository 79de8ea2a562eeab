//! Ejects endpoints that fail where their peers do not, checks whether endpoints answer, and says how the parts of a
//! process are.
//!
//! # What happens to a request
//!
//! Nothing: none of this stands in its way.
//!
//! - **Outlier ejection** ([`OutlierLayer`]) has a judge stand at the gate of each endpoint. Five failures in a row, or an
//!   interval in which it fails much more than its peers, and the endpoint takes no calls for 30 s, 60 s the next time,
//!   and so on; the balancer goes elsewhere, and no caller sees an error. Never are more than half of a service's
//!   endpoints out by it, whoever else keeps some out, and never the last one; nor is anybody ejected while most of them fail. [`OutlierPolicy`] has the numbers, and
//!   where they are from.
//! - **Active checks** ([`HealthChecker`]) ask endpoints whether they answer: [`TcpCheck`], or any closure. After three
//!   failures in a row an endpoint takes no calls until a check succeeds.
//!
//! A balancer that finds most endpoints out believes neither.
//!
//! For a service whose endpoints nobody knows there is [`HealthLayer`], a [`tower::Layer`]: while the service is unhealthy
//! its callers get [`ServiceUnhealthy`] at once.
//!
//! [`Components`] has nothing to do with requests: it knows how the parts of this process are (its cache, its registry),
//! each with its trend and last error, and whether the process is ready.
//!
//! # When to use it
//!
//! Ejection beside a breaker for each endpoint, not instead: the breaker knows one endpoint, and finds out with a probe
//! within a second when it is well again; ejection knows all of them, sees who is merely worse than the others, and is
//! bounded. Checks where calls are few, or where the first calls to a dead endpoint are too many.
//!
//! # Differences from …
//!
//! Tower has nothing of the kind. Envoy and gRPC eject as this does; here an endpoint that is nearly as good as the others
//! is never ejected, services of three endpoints are served by the defaults, and health checks and breakers count
//! towards the bounds.
//!
//! # Example
//!
//! ```
//! use tower_mesh_core::{
//!     Clock, Endpoint, Endpoints, Finish, NewLayer, Outcome, Sampling, ServiceName,
//! };
//! use tower_mesh_health::{EjectionReason, OutlierLayer};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_mesh_core::BoxError> {
//! let three = (1..=3).map(|port| Endpoint::new(([10, 0, 0, 7], port).into()));
//! let endpoints = Endpoints::fixed(ServiceName::new("orders")?, three);
//! let (layer, driver) = OutlierLayer::builder(&endpoints).build();
//! tokio::spawn(driver);
//! tokio::task::yield_now().await;
//!
//! // What a balancer does, who has the layer among its endpoints' layers.
//! let dead = endpoints.current().endpoints()[0].clone();
//! layer.layer_for(&dead);
//! for _ in 0..5 {
//!     let attempt = dead.vitals().attempt(&Clock::tokio(), Sampling::Mean);
//!     attempt.expect("the gate is open").finish(Outcome::failure());
//! }
//!
//! let snapshot = layer.handle().snapshot();
//! assert_eq!(snapshot.ejected[0].id, "10.0.0.7:1");
//! assert_eq!(snapshot.ejected[0].reason, EjectionReason::ConsecutiveFailures);
//! assert!(!dead.vitals().gate().is_open());
//! # Ok(())
//! # }
//! ```
//!
//! # Cost
//!
//! A call that succeeds costs nothing more: no judge of this crate hears of it, what there is to know is read from the
//! endpoint's [`Load`](tower_mesh_core::Load) once in each interval. A call that fails takes a lock that nobody waits for.
//! No call allocates.

mod alone;
mod checks;
mod components;
mod outlier;
mod probe;
mod schedule;
mod text;

pub use self::{
    alone::{
        Health, HealthLayer, HealthLayerBuilder, HealthLayerDriver, ResponseFuture,
        ServiceUnhealthy,
    },
    checks::{
        CheckPolicy, CheckerBuilder, EndpointHealth, HealthCheck, HealthChecker, HealthDriver,
        HealthState, ServiceHealth, TcpCheck,
    },
    components::{
        Component, ComponentSnapshot, Components, ComponentsBuilder, ComponentsDriver,
        ComponentsSnapshot, Criticality, RegisterError, Report, Status, Trend,
    },
    outlier::{
        Ejection, EjectionReason, OutlierBuilder, OutlierDriver, OutlierLayer, OutlierPolicy,
        OutlierSnapshot, Outliers, Readmission, SavedEjection,
    },
    probe::Unhealthy,
};
