//! An adaptive limit for a service that has no endpoints.

use std::num::NonZeroUsize;

use tower::load::CompleteOnResponse;
use tower_layer::Layer;
use tower_mesh_core::{ClassifyErrors, Clock, PerCall};

use super::{
    limit::AdaptiveLimit,
    sample::{SampleLayer, Sampled},
    settings::Adaptive,
};
use crate::bulkhead::{Bulkhead, BulkheadLayer};

/// Lets as many calls run at once as the service can bear, and refuses the rest with
/// [`Overloaded`](crate::Overloaded).
///
/// It is a [`BulkheadLayer`] whose limit [adapts](super::Adaptive), over a [`SampleLayer`] that tells it how calls end. A
/// call counts against the service when the classifier says that it timed out or met with overload, or when a
/// [`DeadlineLayer`](crate::DeadlineLayer) above ends it.
///
/// ```
/// use std::{convert::Infallible, num::NonZeroUsize, time::Duration};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
/// use tower_mesh_limit::{DeadlineLayer, adaptive::AdaptiveLimitLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let layer = AdaptiveLimitLayer::new(NonZeroUsize::new(1_024).unwrap());
/// let limit = layer.limit();
/// let mut service = ServiceBuilder::new()
///     .layer(DeadlineLayer::new(Duration::from_millis(100)))
///     .layer(layer)
///     .service(service_fn(|answers: bool| async move {
///         if !answers {
///             std::future::pending::<()>().await;
///         }
///         Ok::<_, Infallible>("hello")
///     }));
///
/// assert_eq!(service.ready().await?.call(true).await?, "hello");
/// assert_eq!(limit.snapshot().limit, 1_024);
///
/// for _ in 0..5 {
///     service.ready().await?.call(false).await.unwrap_err();
/// }
/// assert_eq!(limit.snapshot().limit, 1);
/// # Ok(())
/// # }
/// ```
///
/// # Clone
///
/// One layer value, its clones and all services made by them share one limit. A setter makes a layer with a limit of its
/// own, so take the [`limit`](Self::limit) last.
#[derive(Clone, Debug)]
pub struct AdaptiveLimitLayer<K = ClassifyErrors, C = CompleteOnResponse> {
    bulkhead: BulkheadLayer<C>,
    classify: K,
}

impl AdaptiveLimitLayer {
    /// A limit that adapts with the defaults of [`Adaptive`], and never goes above `max`.
    pub fn new(max: NonZeroUsize) -> Self {
        Self::over_bulkhead(BulkheadLayer::new(max).adaptive(Adaptive::new()))
    }
}

impl<C> AdaptiveLimitLayer<ClassifyErrors, C> {
    /// The limit of a bulkhead that [adapts](BulkheadLayer::adaptive), with its queue, clock and completion.
    pub fn over_bulkhead(bulkhead: BulkheadLayer<C>) -> Self {
        Self {
            bulkhead,
            classify: ClassifyErrors::default(),
        }
    }
}

impl<K, C> AdaptiveLimitLayer<K, C> {
    /// Adapts in this way. The limit begins anew.
    #[must_use]
    pub fn adaptive(mut self, adaptive: Adaptive) -> Self {
        self.bulkhead = self.bulkhead.adaptive(adaptive);
        self
    }

    /// Takes time from `clock`; by default from tokio's. The limit begins anew.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.bulkhead = self.bulkhead.clock(clock);
        self
    }

    /// Decides with `classify` what an answer says of the service; errors alone speak against it if nothing is said.
    #[must_use]
    pub fn classify<L>(self, classify: L) -> AdaptiveLimitLayer<L, C> {
        AdaptiveLimitLayer {
            bulkhead: self.bulkhead,
            classify,
        }
    }

    /// A look at the limit, and a hand on it.
    pub fn limit(&self) -> AdaptiveLimit {
        self.bulkhead.adaptive_limit()
    }
}

impl<K: Clone, C: Clone> AdaptiveLimitLayer<K, C> {
    /// Puts the limit directly over `inner`, which must be always ready and begin nothing before its future is polled, as
    /// all of tower-mesh's; it saves a clone for each call.
    pub fn over<S>(&self, inner: S) -> Bulkhead<Sampled<S, K>, C> {
        let sample: SampleLayer<K> = self.limit().sample().classify(self.classify.clone());
        self.bulkhead.over(sample.layer(inner))
    }
}

impl<S, K: Clone, C: Clone> Layer<S> for AdaptiveLimitLayer<K, C> {
    type Service = Bulkhead<Sampled<PerCall<S>, K>, C>;

    fn layer(&self, inner: S) -> Self::Service {
        self.over(PerCall::new(inner))
    }
}
