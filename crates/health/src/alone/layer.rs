use std::{fmt, sync::Arc};

use tower::load::CompleteOnResponse;
use tower_layer::Layer;
use tower_mesh_core::{ClassifyErrors, Clock, Endpoint, Load, ServiceName};

use crate::{
    alone::{builder::HealthLayerBuilder, service::Health},
    checks::{EndpointHealth, HealthChecker},
    outlier::{OutlierLayer, Outliers},
};

/// Refuses calls to a service while it is unhealthy: its calls fail, or its check does.
///
/// For a service whose endpoints nobody knows; of known endpoints each is judged on its own
/// ([`OutlierLayer`], [`HealthChecker`]).
///
/// # Clone
///
/// However often [`layer`](Layer::layer) is called, on this value or on its clones, the services share one judgement.
#[derive(Clone)]
pub struct HealthLayer<K = ClassifyErrors, C = CompleteOnResponse> {
    judged: Arc<Judged>,
    classify: K,
    completion: C,
}

/// What is judged, and who judges: as long as one of them is held, the driver runs.
pub(crate) struct Judged {
    pub(crate) service: Endpoint,
    pub(crate) clock: Clock,
    outliers: OutlierLayer,
    checker: Option<HealthChecker>,
}

impl HealthLayer {
    /// Begins a layer for the service of this name.
    pub fn builder(name: &ServiceName) -> HealthLayerBuilder {
        HealthLayerBuilder::new(name)
    }

    pub(crate) fn new(
        service: Endpoint,
        outliers: OutlierLayer,
        checker: Option<HealthChecker>,
        clock: Clock,
    ) -> Self {
        outliers.attach(&service);
        Self {
            judged: Arc::new(Judged {
                service,
                clock,
                outliers,
                checker,
            }),
            classify: ClassifyErrors::default(),
            completion: CompleteOnResponse::default(),
        }
    }
}

impl<K, C> HealthLayer<K, C> {
    /// Decides with `classify` what an answer says of the service; errors alone speak against it if nothing is said.
    #[must_use]
    pub fn classify<L>(self, classify: L) -> HealthLayer<L, C> {
        HealthLayer {
            judged: self.judged,
            classify,
            completion: self.completion,
        }
    }

    /// Ends a call as `completion` says; with the response if nothing is said.
    #[must_use]
    pub fn completion<D>(self, completion: D) -> HealthLayer<K, D> {
        HealthLayer {
            judged: self.judged,
            classify: self.classify,
            completion,
        }
    }

    /// Whether calls are admitted.
    pub fn is_healthy(&self) -> bool {
        self.judged.service.vitals().gate().is_open()
    }

    /// What its calls have led to, as an ejection of the one endpoint that it is.
    pub fn handle(&self) -> &Outliers {
        self.judged.outliers.handle()
    }

    /// How busy, how fast and how successful the service is.
    pub fn load(&self) -> &Load {
        self.judged.service.vitals().load()
    }

    /// What checks have found; nothing if there is no check, or the driver has not been polled.
    pub fn checked(&self) -> Option<EndpointHealth> {
        let status = self.judged.checker.as_ref()?.status();
        status
            .into_iter()
            .flat_map(|service| service.endpoints)
            .next()
    }
}

impl<S, K: Clone, C: Clone> Layer<S> for HealthLayer<K, C> {
    type Service = Health<S, K, C>;

    fn layer(&self, inner: S) -> Self::Service {
        let judged = Arc::clone(&self.judged);
        Health::new(
            inner,
            judged,
            self.classify.clone(),
            self.completion.clone(),
        )
    }
}

impl<K, C> fmt::Debug for HealthLayer<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthLayer")
            .field("service", &self.judged.service.id())
            .field("healthy", &self.is_healthy())
            .finish_non_exhaustive()
    }
}
