//! What is measured: the shipped mesh, and its layers stacked by hand.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use tower::{Layer, Service, ServiceBuilder};
use tower_mesh::{
    Endpoint, Mesh, MeshClient, MeshService, Policy, ServiceName,
    balance::BalanceLayer,
    breaker::{self, BreakerLayer, Window},
    core::{
        BoxError, ClassifyErrors, Clock, CloneIdempotent, Endpoints, Layered, Recorder, Resolution,
        Shared, frame::Joined, metrics::NoRecorder,
    },
    discovery::{Discovered, Discovery, DiscoveryLayer, Static},
    http::{Addressed, AddressedShared, CompleteOnBody, HttpClassify, HttpReplay},
    limit::{Bulkhead, BulkheadLayer, Deadline, DeadlineLayer},
    retry::{Backoff, Budget, Hedge, HedgeLayer, Retry, RetryLayer},
};

use crate::{Inner, Setup};

/// The name of the service that is called.
#[must_use]
pub fn orders() -> ServiceName {
    ServiceName::new("orders").expect("a valid name")
}

/// So many endpoints.
pub fn endpoints(number: u32) -> impl Iterator<Item = Endpoint> {
    (0..number).map(|i| Endpoint::new(SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + i), 80))))
}

/// The shipped client of a service, everything by default, once it knows its endpoints.
///
/// # Errors
///
/// If the mesh does not start.
pub async fn mesh(setup: Setup) -> Result<MeshService<Inner>, BoxError> {
    mesh_recorded_by(NoRecorder::default(), setup).await
}

/// The same, recorded by `recorder`.
///
/// # Errors
///
/// If the mesh does not start.
pub async fn mesh_recorded_by(
    recorder: impl Recorder,
    setup: Setup,
) -> Result<MeshService<Inner>, BoxError> {
    let mesh = started(recorder, &setup).await?;
    let service = mesh.layer("orders")?.over(Shared::new(setup.inner));
    assert_eq!(service.endpoints().resolved().await, Resolution::Found);
    Ok(service)
}

/// The same over a client of the user's own, which has its requests addressed: the whole of what a mesh adds to a client.
///
/// # Errors
///
/// If the mesh does not start.
pub async fn mesh_of_client(setup: Setup) -> Result<MeshService<Addressed<Inner>>, BoxError> {
    let mesh = started(NoRecorder::default(), &setup).await?;
    let service = mesh.layer("orders")?.layer(setup.inner);
    assert_eq!(service.endpoints().resolved().await, Resolution::Found);
    Ok(service)
}

/// The same for all services, by the authority of a request.
///
/// # Errors
///
/// If the mesh does not start.
pub async fn mesh_by_authority(setup: Setup) -> Result<MeshClient<Addressed<Inner>>, BoxError> {
    let mesh = started(NoRecorder::default(), &setup).await?;
    let endpoints = mesh.service("orders")?;
    assert_eq!(endpoints.endpoints().resolved().await, Resolution::Found);
    Ok(mesh.client_over(AddressedShared::new(setup.inner)))
}

async fn started(recorder: impl Recorder, setup: &Setup) -> Result<Mesh, BoxError> {
    let mesh = Mesh::builder("storefront")
        .discovery(Static::new().service(orders(), endpoints(setup.endpoints)))
        .recorder(recorder);
    let mesh = match &setup.clock {
        Some(clock) => mesh.clock(clock.clone()),
        None => mesh,
    };
    Ok(mesh.start().await?)
}

/// The layers of a service, each as the integrator sets it by default.
#[derive(Debug)]
pub struct Layers {
    policy: Policy,
    inner: Inner,
    clock: Clock,
    discovery: Discovery,
    endpoints: Endpoints,
}

impl Layers {
    /// The layers, once discovery has found the endpoints.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[allow(clippy::disallowed_methods)] // Nothing else runs here, and the process ends with the measurement.
    pub async fn new(setup: Setup) -> Self {
        let clock = setup.clock.unwrap_or_else(|| {
            let (clock, timers) = Clock::for_runtime();
            timers.map(tokio::spawn);
            clock
        });
        let (discovery, driver) =
            Discovery::builder(Static::new().service(orders(), endpoints(setup.endpoints)))
                .clock(clock.clone())
                .build();
        tokio::spawn(driver);
        let endpoints = discovery.endpoints(&orders());
        assert_eq!(endpoints.resolved().await, Resolution::Found);
        Self {
            policy: Policy::default(),
            inner: setup.inner,
            clock,
            discovery,
            endpoints,
        }
    }

    /// The whole call's time limit.
    #[must_use]
    pub fn deadline(&self) -> Over<DeadlineLayer> {
        Over(DeadlineLayer::new(self.policy.timeout).clock(self.clock.clone()))
    }

    /// Waits for the first answer of the registry.
    #[must_use]
    pub fn discovery(&self) -> Over<DiscoveryLayer> {
        Over(self.discovery.layer(&orders()))
    }

    /// One permit a call.
    #[must_use]
    pub fn bulkhead(&self) -> Over<BulkheadLayer> {
        let limit = &self.policy.limit;
        let layer = BulkheadLayer::new(limit.max_in_flight)
            .queue(limit.queue)
            .max_wait(limit.max_wait);
        Over(layer.clock(self.clock.clone()))
    }

    /// One permit a call, to the end of the response's body.
    #[must_use]
    pub fn http_bulkhead(&self) -> Over<BulkheadLayer<CompleteOnBody>> {
        Over(self.bulkhead().0.completion(CompleteOnBody::new()))
    }

    /// Attempts within a budget.
    #[must_use]
    pub fn retry(&self) -> Over<RetryLayer> {
        let retry = &self.policy.retry;
        let budget = Budget::new(retry.budget).min_per_second(retry.min_per_second);
        let layer = RetryLayer::new(budget)
            .attempts(retry.attempts)
            .backoff(Backoff::exponential(retry.backoff, retry.max_backoff))
            .per_try_timeout(retry.per_try_timeout);
        Over(layer.clock(self.clock.clone()))
    }

    /// Attempts within a budget, of what HTTP says can be sent twice.
    #[must_use]
    pub fn http_retry(&self) -> Over<RetryLayer<HttpReplay, HttpClassify>> {
        let layer = self.retry().0.replay(HttpReplay::new());
        Over(layer.classify(HttpClassify::new()))
    }

    /// A second attempt beside one that takes long. The mesh has none unless it is told to.
    #[must_use]
    pub fn hedge(&self) -> Over<HedgeLayer> {
        let layer = HedgeLayer::new(Budget::new(self.policy.retry.budget));
        let layer = layer.elsewhere(self.endpoints.clone());
        Over(layer.clock(self.clock.clone()))
    }

    /// The best of three endpoints.
    #[must_use]
    pub fn balance(&self) -> BalanceLayer {
        BalanceLayer::new(self.endpoints.clone())
            .strategy(self.policy.balance)
            .clock(self.clock.clone())
    }

    /// The best of three endpoints, judged at the end of the response's body.
    #[must_use]
    pub fn http_balance(&self) -> BalanceLayer<HttpClassify, CompleteOnBody> {
        self.balance()
            .classify(HttpClassify::new())
            .completion(CompleteOnBody::new())
    }

    /// A breaker for each endpoint.
    #[must_use]
    pub fn breaker(&self) -> BreakerLayer {
        let breaker = &self.policy.breaker;
        let policy = breaker::Policy::default()
            .consecutive_failures(breaker.consecutive_failures)
            .failure_rate(breaker.failure_rate)
            .window(Window::over(Duration::from_secs(10)))
            .min_calls(const { NonZeroU32::new(10).expect("not zero") })
            .open_for(breaker.open_for)
            .open_at_most(breaker.max_open);
        BreakerLayer::new(policy).clock(self.clock.clone())
    }

    /// The services of the endpoints, each with its breaker.
    #[must_use]
    pub fn connect(&self) -> Layered<Shared<Inner>, BreakerLayer> {
        Layered::new(self.connect_without_breaker(), self.breaker())
    }

    /// The services of the endpoints.
    #[must_use]
    pub fn connect_without_breaker(&self) -> Shared<Inner> {
        Shared::new(self.inner)
    }

    /// The service beneath, alone.
    #[must_use]
    pub fn inner(&self) -> Inner {
        self.inner
    }
}

/// A layer as the mesh puts it over its own services, which are always ready: by `over`, without a clone for each call.
#[derive(Clone, Debug)]
pub struct Over<L>(L);

impl<S> Layer<S> for Over<DeadlineLayer> {
    type Service = Deadline<S>;

    fn layer(&self, beneath: S) -> Self::Service {
        self.0.over(beneath)
    }
}

impl Over<DiscoveryLayer> {
    /// Beneath a layer that opens the frame.
    #[must_use]
    pub fn joined(self) -> Over<DiscoveryLayer<Joined>> {
        Over(self.0.joined())
    }
}

impl<R, K> Over<RetryLayer<R, K>> {
    /// Beneath a layer that opens the frame.
    #[must_use]
    pub fn joined(self) -> Over<RetryLayer<R, K, Joined>> {
        Over(self.0.joined())
    }
}

impl<S, G> Layer<S> for Over<DiscoveryLayer<G>> {
    type Service = Discovered<S, G>;

    fn layer(&self, beneath: S) -> Self::Service {
        self.0.over(beneath)
    }
}

impl<S, R: Clone, K: Clone, G> Layer<S> for Over<RetryLayer<R, K, G>> {
    type Service = Retry<S, R, K, G>;

    fn layer(&self, beneath: S) -> Self::Service {
        self.0.over(beneath)
    }
}

impl<S> Layer<S> for Over<HedgeLayer> {
    type Service = Hedge<S, CloneIdempotent, ClassifyErrors>;

    fn layer(&self, beneath: S) -> Self::Service {
        self.0.over(beneath)
    }
}

impl<S, C: Clone> Layer<S> for Over<BulkheadLayer<C>> {
    type Service = Bulkhead<S, C>;

    fn layer(&self, beneath: S) -> Self::Service {
        self.0.over(beneath)
    }
}

/// The stack of a service as the integrator stacks it, its own outermost layer and HTTP aside, once discovery has found
/// the endpoints.
///
/// # Panics
///
/// Outside a tokio runtime.
pub async fn stack(
    setup: Setup,
) -> impl Service<u64, Response = u64, Error = BoxError, Future: Send> + Clone + Send {
    let layers = Layers::new(setup).await;
    ServiceBuilder::new()
        .layer(layers.deadline())
        .layer(layers.discovery().joined())
        .layer(layers.bulkhead())
        .layer(layers.retry().joined())
        .layer(layers.balance())
        .service(layers.connect())
}
