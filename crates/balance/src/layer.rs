//! The settings of a balancer.

use tower::load::CompleteOnResponse;
use tower_layer::Layer;
use tower_mesh_core::{ClassifyErrors, Clock, Endpoint, Endpoints, NewService, Rng};

use crate::{
    pick::Chance,
    pool::{Pool, Settings},
    service::Balance,
    strategy::Strategy,
};

/// Spreads calls over the endpoints of a service.
///
/// It wraps a [`NewService<Endpoint>`](NewService): a closure that makes a service for an endpoint, or
/// [`Shared`](tower_mesh_core::Shared) for one client that serves them all.
///
/// # Clone
///
/// Load, gates and statistics belong to the endpoints, so all that one layer value makes, and all its clones make, know
/// the same of them. Services are made for each `layer()` anew.
#[derive(Clone, Debug)]
pub struct BalanceLayer<K = ClassifyErrors, C = CompleteOnResponse> {
    endpoints: Endpoints,
    settings: Settings,
    classify: K,
    completion: C,
}

impl BalanceLayer {
    /// Spreads calls over `endpoints`: by [`Strategy::BestOfThree`], judging errors by their
    /// [`Refusal`](tower_mesh_core::Refusal), and done with a call when its response is there.
    pub fn new(endpoints: Endpoints) -> Self {
        Self {
            endpoints,
            settings: Settings {
                strategy: Strategy::default(),
                clock: Clock::default(),
                chance: Chance::default(),
            },
            classify: ClassifyErrors::default(),
            completion: CompleteOnResponse::default(),
        }
    }
}

impl<K, C> BalanceLayer<K, C> {
    /// Sets how an endpoint is chosen.
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.settings.strategy = strategy;
        self
    }

    /// Sets where the time comes from.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Sets where chance comes from.
    #[must_use]
    pub fn rng(mut self, rng: Rng) -> Self {
        self.settings.chance.rng = rng;
        self
    }

    /// Sets what a response or an error says of its endpoint.
    ///
    /// A classifier that answers [`Verdict`](tower_mesh_core::Verdict), so that it may leave it to the end of a body,
    /// needs a [`completion`](Self::completion) that promises to bring that about.
    pub fn classify<K2>(self, classify: K2) -> BalanceLayer<K2, C> {
        BalanceLayer {
            endpoints: self.endpoints,
            settings: self.settings,
            classify,
            completion: self.completion,
        }
    }

    /// Sets when a call that was answered is over: until then it counts as in flight.
    pub fn completion<C2>(self, completion: C2) -> BalanceLayer<K, C2> {
        BalanceLayer {
            endpoints: self.endpoints,
            settings: self.settings,
            classify: self.classify,
            completion,
        }
    }
}

impl<N, K, C> Layer<N> for BalanceLayer<K, C>
where
    N: NewService<Endpoint> + Send + Sync + 'static,
    N::Service: Send + Sync + 'static,
    K: Clone + Send + Sync + 'static,
    C: Clone + Send + Sync + 'static,
{
    type Service = Balance<N::Service, K, C>;

    fn layer(&self, new_service: N) -> Self::Service {
        let judging = (self.classify.clone(), self.completion.clone());
        Balance::new(Pool::new(
            self.endpoints.clone(),
            Box::new(new_service),
            self.settings.clone(),
            judging,
        ))
    }
}
