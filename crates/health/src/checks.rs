//! Active checks: endpoints are asked whether they answer.

mod checker;
mod driver;
mod judge;
mod policy;
mod status;
mod tcp;
mod verdict;

use std::{future::Future, sync::Arc};

use tower_mesh_core::{BoxError, BoxFuture, Endpoint};

pub use self::{
    checker::{CheckerBuilder, HealthChecker},
    driver::HealthDriver,
    policy::CheckPolicy,
    status::{EndpointHealth, ServiceHealth},
    tcp::TcpCheck,
    verdict::HealthState,
};

/// Asks an endpoint whether it is well.
///
/// A closure is one that takes an [`Endpoint`] and gives a future of a `Result`; so is an [`Arc`] of one. [`TcpCheck`]
/// asks whether the port answers. What a check needs (a client, a path) it holds itself.
///
/// # Errors
///
/// Any error is a failure, of which it takes [several in a row](CheckPolicy::unhealthy_after). An error that is
/// [`Unhealthy`](crate::Unhealthy) counts at once: the endpoint has said so itself.
///
/// # Panics
///
/// One that panics has failed; nobody else is harmed.
///
/// # Cancel safety
///
/// The future is dropped when its time is over, or the endpoint goes.
///
/// # Example
///
/// ```
/// use tower_mesh_core::{BoxError, Endpoint};
/// use tower_mesh_health::{HealthChecker, Unhealthy};
///
/// let (checker, driver) = HealthChecker::builder(async |endpoint: Endpoint| {
///     match endpoint.metadata("state") {
///         Some("broken") => Err(BoxError::from(Unhealthy::new("it says it is broken"))),
///         _ => Ok(()),
///     }
/// })
/// .build();
/// # drop((checker, driver));
/// ```
pub trait HealthCheck: Send + Sync + 'static {
    /// Asks `endpoint`.
    fn check(&self, endpoint: &Endpoint) -> BoxFuture<'static, Result<(), BoxError>>;
}

impl<F, A, E> HealthCheck for F
where
    F: Fn(Endpoint) -> A + Send + Sync + 'static,
    A: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<BoxError>,
{
    fn check(&self, endpoint: &Endpoint) -> BoxFuture<'static, Result<(), BoxError>> {
        let answer = self(endpoint.clone());
        Box::pin(async move { answer.await.map_err(Into::into) })
    }
}

impl<C: HealthCheck + ?Sized> HealthCheck for Arc<C> {
    fn check(&self, endpoint: &Endpoint) -> BoxFuture<'static, Result<(), BoxError>> {
        (**self).check(endpoint)
    }
}
