//! The settings of a balancer.

use std::sync::Arc;

use tower::load::CompleteOnResponse;
use tower_layer::Layer;
use tower_mesh_core::{ClassifyErrors, Clock, Endpoint, Endpoints, NewService, Ratio, Rng};

use crate::{
    explain::Explanation,
    hash::{HashBy, Hashing},
    levels::{Levels, Ranking},
    panic::Panic,
    pick::{Chance, Field},
    pool::{Pool, Settings},
    service::Balance,
    slow_start::SlowStart,
    strategy::Strategy,
    subset::Subset,
    table::Table,
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
        let panic = Panic::of(endpoints.service());
        Self {
            endpoints,
            settings: Settings {
                strategy: Strategy::default(),
                clock: Clock::default(),
                chance: Chance {
                    panic,
                    ..Chance::default()
                },
                ranking: Ranking::default(),
                subset: None,
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

    /// Sets the share of the endpoints that may be out before calls are routed [in a panic](crate#panic): 50 % unless
    /// said, as in Envoy. With 100 % only [`min_healthy`](Self::min_healthy) counts.
    #[must_use]
    pub fn max_out(mut self, share: Ratio) -> Self {
        self.settings.chance.panic.max_out(share);
        self
    }

    /// Sets how many endpoints have to be healthy, else calls are routed [in a panic](crate#panic): one unless said, so
    /// that there is always somebody to try whatever share may be out. With none only the share counts.
    #[must_use]
    pub fn min_healthy(mut self, endpoints: usize) -> Self {
        self.settings.chance.panic.min_healthy(endpoints);
        self
    }

    /// Sets how endpoints that are new or back get to their full share; over 30 s unless said.
    #[must_use]
    pub fn slow_start(mut self, slow_start: SlowStart) -> Self {
        self.settings.chance.slow_start = slow_start;
        self
    }

    /// Sends calls with the same key to the same endpoint, as far as that can take them: [`HashBy`] says how. `key` gives
    /// what of a request is its key; a request without one goes where the strategy says.
    ///
    /// # Example
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
    /// use tower_mesh_balance::BalanceLayer;
    /// use tower_mesh_core::{Endpoint, Endpoints, ServiceName, Shared};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower::BoxError> {
    /// let ports = [8080, 8081, 8082];
    /// let endpoints = ports.map(|port| Endpoint::new(([10, 0, 0, 1], port).into()));
    /// let balance = BalanceLayer::new(Endpoints::fixed(ServiceName::new("carts")?, endpoints));
    /// let mut carts = ServiceBuilder::new()
    ///     .layer(balance.hash_by(|cart: &String| Some(cart.clone())))
    ///     .service(|endpoint: &Endpoint| {
    ///         let port = endpoint.address().port();
    ///         service_fn(move |_: String| async move { Ok::<_, Infallible>(port) })
    ///     });
    ///
    /// let first = carts.ready().await?.call("mine".to_owned()).await?;
    /// assert_eq!(carts.ready().await?.call("mine".to_owned()).await?, first);
    /// # Ok(())
    /// # }
    /// ```
    pub fn hash_by<F>(self, key: F) -> HashBy<F, K, C> {
        HashBy::new(self, key)
    }

    /// Has balancers heed the keys of calls, which [`HashBy::over`] looks for: none unless said. For who makes the balancer
    /// and what stands above it in different places; else [`hash_by`](Self::hash_by) does both.
    #[must_use]
    pub fn hashing(mut self, hashing: impl Into<Option<Hashing>>) -> Self {
        self.settings.chance.hashing = hashing.into();
        self
    }

    /// Sets where the caller runs, so that calls stay [near](crate#priorities-and-zones). Off unless said.
    ///
    /// `path` leads from the largest part to the smallest, as the endpoints' [zones](Endpoint::zone) do: `eu-west/1a`, or
    /// only `1a`. An empty one switches it off.
    #[must_use]
    pub fn zone(mut self, path: &str) -> Self {
        self.settings.ranking.zone = (!path.is_empty()).then(|| path.into());
        self
    }

    /// Sets how many endpoints that are as near as each other are preferred to others: three unless said, so that one of
    /// them may fail. Fewer are joined with those that come next.
    #[must_use]
    pub fn min_nearby(mut self, endpoints: usize) -> Self {
        self.settings.ranking.min_nearby = endpoints;
        self
    }

    /// Sets which of the endpoints are called: all of them unless said.
    #[must_use]
    pub fn subset(mut self, subset: impl Into<Option<Subset>>) -> Self {
        self.settings.subset = subset.into();
        self
    }

    /// Why each endpoint is or is not picked now. It looks at all of them: for a status, not for a call.
    ///
    /// Endpoints whose service could not be made are not known here.
    pub fn explain(&self) -> Explanation {
        let (service, set) = (self.endpoints.service(), self.endpoints.current());
        Explanation::new(service, &set, &self.settings)
    }

    /// Whether calls are routed [in a panic](crate#panic) now, those of some priority at least. It looks at every
    /// endpoint: for a status, not for a call.
    pub fn is_panicking(&self) -> bool {
        let set = self.endpoints.current();
        let endpoints = set.endpoints();
        let weights: Vec<_> = endpoints.iter().map(|e| e.weight().get()).collect();
        let Settings {
            clock,
            chance,
            ranking,
            subset,
            ..
        } = &self.settings;
        let ranks: Vec<_> = endpoints.iter().map(|e| ranking.of(e)).collect();
        let members = subset.map(|subset| subset.members(endpoints, &ranks, &weights));
        let member = |index: usize| members.as_ref().is_none_or(|members| members[index]);
        if let Some(levels) =
            Levels::new(None, ranking, endpoints, &ranks, &weights, member, chance)
        {
            levels.count(endpoints);
            return levels.iter().any(|level| level.is_panicking(endpoints));
        }
        let table = &Table::new(&weights, member);
        chance
            .panic
            .count(Field { endpoints, table }, clock.now())
            .is_on()
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

impl<K, C> BalanceLayer<K, C>
where
    K: Clone + Send + Sync + 'static,
    C: Clone + Send + Sync + 'static,
{
    /// The services of `old`, with their connections, under the settings of this layer. `old` goes on as it was, with the
    /// calls that it has.
    pub fn again<S>(&self, old: &Balance<S, K, C>) -> Balance<S, K, C>
    where
        S: Send + Sync + 'static,
    {
        let judging = (self.classify.clone(), self.completion.clone());
        Balance::new(old.pool().again(self.settings.clone(), judging))
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
            Arc::new(new_service),
            self.settings.clone(),
            judging,
        ))
    }
}
