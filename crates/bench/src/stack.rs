//! What is measured: the shipped mesh, and its layers stacked by hand.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    time::Duration,
};

use tower::{Service, ServiceBuilder, layer::layer_fn};
use tower_mesh::{
    Endpoint, Mesh, MeshService, ServiceName,
    balance::BalanceLayer,
    breaker::BreakerLayer,
    core::{BoxError, Clock, Layered, Resolution, Shared},
    discovery::{Discovery, Static},
    limit::{BulkheadLayer, DeadlineLayer},
    retry::{Budget, RetryLayer},
};

use crate::Inner;

fn orders() -> ServiceName {
    ServiceName::new("orders").expect("a valid name")
}

/// A registry that knows `orders` at so many addresses.
fn registry(endpoints: u32) -> Static {
    let addresses = (0..endpoints).map(|i| SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + i), 80)));
    Static::new().service(orders(), addresses.map(Endpoint::new))
}

/// The shipped client of a service, everything by default, once it knows its `endpoints` endpoints.
///
/// # Errors
///
/// If the mesh does not start.
pub async fn mesh(
    endpoints: u32,
    inner: Inner,
    clock: Clock,
) -> Result<(Mesh, MeshService<Inner>), BoxError> {
    let mesh = Mesh::builder("storefront")
        .discovery(registry(endpoints))
        .clock(clock)
        .start()
        .await?;
    let service = mesh.layer("orders")?.over(Shared::new(inner));
    assert_eq!(service.endpoints().resolved().await, Resolution::Found);
    Ok((mesh, service))
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
) -> impl Service<u64, Response = u64, Error = BoxError, Future: Send> + Clone + Send {
    let (discovery, driver) = Discovery::builder(registry(endpoints))
        .clock(clock.clone())
        .build();
    #[allow(clippy::disallowed_methods)]
    // Nothing else runs here, and the process ends with the measurement.
    tokio::spawn(driver);
    let endpoints = discovery.endpoints(&orders());
    assert_eq!(endpoints.resolved().await, Resolution::Found);
    let deadline = DeadlineLayer::new(Duration::from_secs(10)).clock(clock.clone());
    let bulkhead = BulkheadLayer::new(const { NonZeroUsize::new(1024).expect("not zero") })
        .clock(clock.clone());
    ServiceBuilder::new()
        .layer(layer_fn(|beneath| deadline.over(beneath)))
        .layer(discovery.layer(&orders()))
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
