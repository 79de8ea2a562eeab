//! The stack of a service: the one place that says in which order a call passes the layers, and why.

use std::{
    error::Error,
    num::NonZeroU32,
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue, Request, Response};
use tower::{ServiceBuilder, layer::layer_fn, load::CompleteOnResponse, util::Either};
use tower_layer::{Identity, Layer};
use tower_mesh_balance::{
    Balance, BalanceLayer, Explanation, Hashed, Hashing, KeyOf, SlowStart, Subset,
};
use tower_mesh_breaker::{Breaker, BreakerLayer, CircuitBreaker, Window};
use tower_mesh_core::{
    Attempt, Classify, Endpoint, Endpoints, Layered, NewLayer, NewService, Outcome, Verdict,
    frame::Joined,
};
use tower_mesh_discovery::{Discovered, DiscoveryLayer};
use tower_mesh_health::{OutlierLayer, OutlierPolicy, OutlierSnapshot};
use tower_mesh_http::{
    Body, CompleteOnBody, HttpClassify, HttpReplay, TrackedBody,
    credentials::{Credentialed, CredentialsLayer},
};
use tower_mesh_limit::{
    Adaptive, AdaptiveLimit, Bulkhead, BulkheadHandle, BulkheadLayer, BulkheadSnapshot, Deadline,
    DeadlineLayer, Permit,
};
use tower_mesh_retry::{
    Backoff, Budget, BudgetSnapshot, Hedge, HedgeAfter, HedgeLayer, HedgeSnapshot, Retry,
    RetryLayer,
};
use tower_service::Service;

use crate::{
    checks::readmission,
    mesh::Core,
    observe::{self, Observe, ObserveLayer, Scope},
    on_heap::OnHeap,
    policy::{BreakerPolicy, Policy},
    snapshot::Recall,
    tasks::Held,
};

/// The layers of one service: one state, however many stacks are built from them.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    pub(crate) scope: Arc<Scope>,
    pub(crate) policy: Policy,
    discovery: DiscoveryLayer<Joined>,
    bulkhead: BulkheadLayer<CompleteOnBody>,
    pub(crate) permits: BulkheadHandle,
    /// The limit that hears how attempts end: of these layers, or of those that followed.
    limit: Arc<ArcSwap<AdaptiveLimit>>,
    service_breaker: Option<BreakerLayer<ByHead>>,
    retry: RetryLayer<HttpReplay, HttpClassify, Joined>,
    budget: Budget,
    hedge: Option<HedgeLayer<HttpReplay, HttpClassify, Joined>>,
    balance: BalanceLayer<HttpClassify, CompleteOnBody>,
    /// Whose subset of the endpoints is called where no name is given; drawn when it is first needed.
    client: Arc<OnceLock<Subset>>,
    breaker: BreakerLayer,
    outliers: OutlierLayer,
    recall: Recall,
    endpoints: Endpoints,
    /// Ends with the last of the layers.
    _ejecting: Arc<Held>,
}

/// The whole stack over endpoint services of type `S`.
pub(crate) type Stack<S> = Observe<Deadline<Beneath<S>, Joined>>;

/// What lies beneath the deadline.
type Beneath<S> = Discovered<Bulkhead<Guarded<S>, CompleteOnBody>, Joined>;

/// The attempts of a call: as nearly all services have them, or with what few ask for.
type Guarded<S> = Either<OnHeap<Seldom<S>>, Retried<Balanced<S>>>;

/// The attempts of a call, beneath the service's breaker if it has one, hedged if it is, by key if there is one, with a
/// token if there is one.
type Seldom<S> =
    Credentialed<Either<CircuitBreaker<Attempts<S>, ByHead, CompleteOnResponse>, Attempts<S>>>;

/// The attempts of a call, hedged or not.
type Attempts<S> = Either<Retried<Hedged<S>>, Retried<Keyed<S>>>;

/// The attempts of a call, one after the other.
type Retried<S> = Retry<S, HttpReplay, HttpClassify, Joined>;

/// One attempt, with another beside it when it is slow.
type Hedged<S> = Hedge<Keyed<S>, HttpReplay, HttpClassify, Joined>;

/// The endpoints, for whose choice a header may be the key.
type Keyed<S> = Hashed<Balanced<S>, ByHeader>;

/// The endpoints of the service, as one.
pub(crate) type Balanced<S> = Balance<S, HttpClassify, CompleteOnBody>;

/// The body of a response: what the endpoint sends, with the attempt and the permit that end with it.
pub type ResponseBody<B> = TrackedBody<TrackedBody<B, Attempt>, Permit>;

/// The future of a call.
pub type ResponseFuture<S> =
    observe::ResponseFuture<<Deadline<Beneath<S>, Joined> as Service<Request<Body>>>::Future>;

impl Layers {
    /// Stacks the layers over the endpoints.
    pub(crate) fn over<S>(&self, endpoints: Balanced<S>) -> Stack<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        ServiceBuilder::new()
            // Counts, traces, opens the frame, makes the one error. Above everything because it has to see refusals of
            // every layer, and because the frame has to be open before anybody asks for the time.
            .layer(ObserveLayer(Arc::clone(&self.scope)))
            // Above discovery, bulkhead and retry because waiting there is the caller's time, too; beneath the frame so
            // that its timer is the call's one timer.
            .layer(layer_fn(|beneath| {
                self.deadline(self.policy.timeout).over(beneath)
            }))
            // Above the bulkhead so that calls which wait for the first look-up hold no permits; beneath the deadline so
            // that a registry that does not answer cannot hang a call.
            .layer(layer_fn(|beneath| self.discovery.over(beneath)))
            // Above retry because one call takes one permit, however many attempts it makes: else retries would starve
            // fresh calls. Beneath discovery so that a name that does not exist takes none.
            .layer(layer_fn(|beneath| self.bulkhead.over(beneath)))
            // Beneath the bulkhead so that its budget is asked only for calls that run; above the balancer so that each
            // attempt picks again, and elsewhere.
            .layer(layer_fn(|endpoints: Balanced<S>| {
                if self.service_breaker.is_none()
                    && self.hedge.is_none()
                    && self.policy.hash.header.is_none()
                    && self.credentials().is_none()
                {
                    Either::Right(self.retry.over(endpoints))
                } else {
                    Either::Left(OnHeap(self.seldom(endpoints)))
                }
            }))
            // Above the endpoints because it chooses among them; beneath retry because an attempt is one endpoint's.
            .service(endpoints)
    }

    /// What few services have between bulkhead and balancer.
    fn seldom<S>(&self, endpoints: Balanced<S>) -> Seldom<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        // Next to the balancer so that each attempt, and a hedge too, has the key, and goes to the next endpoint for it.
        let key = ByHeader(self.policy.hash.header.clone());
        let by = self.balance.clone().hash_by(key);
        let endpoints = by.seed(self.policy.hash.seed).over(endpoints);
        let attempts = match &self.hedge {
            // Above the balancer so that the second attempt picks again, and elsewhere; beneath retry so that what is slow
            // and what has failed are paid for out of one budget, and attempts add up instead of multiplying.
            Some(hedge) => Either::Left(self.retry.over(hedge.over(endpoints))),
            None => Either::Right(self.retry.over(endpoints)),
        };
        let attempts = match &self.service_breaker {
            // Above retry because it judges calls, not attempts; beneath the bulkhead so that a call which is refused a
            // permit never holds a probe's place.
            Some(breaker) => Either::Left(breaker.layer(attempts)),
            None => Either::Right(attempts),
        };
        match self.credentials() {
            // Above retry because a call waits once for its token, and that is no attempt's time; above the breaker because
            // who gives no tokens is not the service. Beneath the bulkhead so that no more calls wait for one than may run.
            Some(credentials) => credentials.over(attempts),
            None => Credentialed::without(attempts),
        }
    }

    /// What is shown to this service.
    fn credentials(&self) -> Option<&CredentialsLayer> {
        self.scope.core.credentials.get(&self.scope.service)
    }

    /// Chooses among the services that `connect` makes for endpoints.
    pub(crate) fn balance<N>(&self, connect: N) -> Balanced<N::Service>
    where
        N: NewService<Endpoint> + Send + Sync + 'static,
        N::Service: Clone + Send + Sync + 'static,
    {
        // Beneath the balancer, with the endpoint: it writes the gate that the balancer reads, so "not now" means
        // another endpoint and never an error. It adds no service.
        let connect = Layered::new(
            connect,
            self.recall.layer(&self.breaker, &self.scope.core.clock),
        );
        let connect = Layered::new(connect, LimitLayer(Arc::clone(&self.limit)));
        let connect = Layered::new(connect, self.outliers.clone());
        (self.balance).layer(Layered::new(connect, self.breaker.clone()))
    }

    /// The same services, chosen among as these layers say.
    pub(crate) fn balance_again<S>(&self, endpoints: &Balanced<S>) -> Balanced<S>
    where
        S: Send + Sync + 'static,
    {
        self.balance.again(endpoints)
    }

    /// `stack` with another deadline above the same layers.
    pub(crate) fn with_timeout<S: Clone>(&self, stack: &Stack<S>, timeout: Duration) -> Stack<S> {
        ServiceBuilder::new()
            .layer(ObserveLayer(Arc::clone(&self.scope)))
            .service(
                self.deadline(timeout)
                    .over(stack.get_ref().get_ref().clone()),
            )
    }

    fn deadline(&self, timeout: Duration) -> DeadlineLayer<Joined> {
        let layer = DeadlineLayer::new(timeout).clock(self.scope.core.clock.clone());
        layer.joined()
    }
}

impl Layers {
    /// The layers of a service, as `policy` says.
    pub(crate) fn new(
        scope: Arc<Scope>,
        endpoints: &Endpoints,
        policy: &Policy,
        recall: Recall,
    ) -> Self {
        let (service, core) = (&scope.service, &*scope.core);
        let (clock, rng) = (core.clock.clone(), core.rng.clone());
        let bulkhead = bulkhead(policy, core);
        if let Some(limit) = recall.limit {
            bulkhead.adaptive_limit().restore(limit);
        }
        let budget = budget(policy);
        let (outliers, driver) = OutlierLayer::builder(endpoints)
            .policy(outlier_policy(policy))
            .clock(clock.clone())
            .rng(rng.clone())
            .build();
        outliers
            .handle()
            .restore(recall.ejections(), Duration::ZERO);
        let balance = BalanceLayer::new(endpoints.clone())
            .zone(core.zone.as_deref().unwrap_or_default())
            .clock(clock.clone())
            .rng(rng.clone())
            .classify(HttpClassify::new())
            .completion(CompleteOnBody::new());
        let client = Arc::default();
        Self {
            discovery: core.discovery.layer(service).joined(),
            permits: bulkhead.handle(),
            limit: Arc::new(ArcSwap::from_pointee(bulkhead.adaptive_limit())),
            bulkhead,
            service_breaker: (policy.breaker.service).then(|| service_breaker(policy, &scope)),
            retry: retry_layer(policy, &budget, core),
            hedge: hedge_layer(policy, &budget, endpoints, core),
            budget,
            outliers,
            balance: balanced(balance, policy, &client, core),
            client,
            breaker: BreakerLayer::new(breaker_policy(&policy.breaker))
                .name(service.as_str())
                .clock(clock)
                .rng(rng),
            recall,
            endpoints: endpoints.clone(),
            _ejecting: Arc::new(core.tasks.spawn_held(driver)),
            policy: policy.clone(),
            scope,
        }
    }

    /// The layers as another policy says. What it leaves alone is the same layer, with all that it knows; the breakers of
    /// the endpoints follow at once.
    pub(crate) fn under(&self, policy: &Policy) -> Self {
        let mut next = self.clone();
        let (old, core) = (&self.policy, &*self.scope.core);
        if pool_of(policy) != pool_of(old) {
            next.bulkhead = bulkhead(policy, core);
            next.permits = next.bulkhead.handle();
            next.hear_of_attempts();
        } else if policy.limit != old.limit {
            next.permits.set_limit(policy.limit.max_in_flight);
        }
        let earned = |policy: &Policy| (policy.retry.budget, policy.retry.min_per_second);
        if earned(policy) != earned(old) {
            next.budget = budget(policy);
        }
        if policy.retry != old.retry {
            next.retry = retry_layer(policy, &next.budget, core);
        }
        if policy.hedge != old.hedge || earned(policy) != earned(old) {
            next.hedge = hedge_layer(policy, &next.budget, &self.endpoints, core);
        }
        if outlier_policy(policy) != outlier_policy(old) {
            next.outliers.handle().set_policy(outlier_policy(policy));
        }
        let breakers = breaker_policy(&policy.breaker);
        if policy.breaker != old.breaker {
            next.breaker.follow(breakers.clone()).expect(SAME_WINDOW);
        }
        next.service_breaker = match &self.service_breaker {
            _ if !policy.breaker.service => None,
            Some(there) => {
                there.follow(breakers).expect(SAME_WINDOW);
                Some(there.clone())
            }
            None => Some(service_breaker(policy, &self.scope)),
        };
        next.balance = balanced(next.balance, policy, &next.client, core);
        next.policy = policy.clone();
        next
    }

    /// Has this bulkhead's limit hear how attempts end, at endpoints that there are and those to come.
    fn hear_of_attempts(&self) {
        let limit = self.bulkhead.adaptive_limit();
        for endpoint in self.endpoints.current().endpoints() {
            limit.layer_for(endpoint);
        }
        self.limit.store(Arc::new(limit));
    }

    /// The limit of calls in flight, as it adapts.
    pub(crate) fn limit(&self) -> AdaptiveLimit {
        self.bulkhead.adaptive_limit()
    }

    /// How full the bulkhead is.
    pub(crate) fn permits(&self) -> BulkheadSnapshot {
        self.permits.snapshot()
    }

    /// How the retry budget stands.
    pub(crate) fn budget(&self) -> BudgetSnapshot {
        self.budget.snapshot(self.scope.core.clock.now())
    }

    /// Who is ejected.
    pub(crate) fn ejected(&self) -> OutlierSnapshot {
        self.outliers.handle().snapshot()
    }

    /// What became of hedges, if the service is hedged.
    pub(crate) fn hedges(&self) -> Option<HedgeSnapshot> {
        self.hedge.as_ref().map(HedgeLayer::snapshot)
    }

    /// Why each endpoint is or is not picked now.
    pub(crate) fn explain(&self) -> Explanation {
        self.balance.explain()
    }

    /// Whether so many endpoints are out that their judges are not believed.
    pub(crate) fn is_panicking(&self) -> bool {
        self.balance.is_panicking()
    }

    /// The breaker of the service as a whole, if it has one.
    pub(crate) fn service_breaker(&self) -> Option<&Breaker> {
        self.service_breaker.as_ref().map(BreakerLayer::handle)
    }

    /// The breaker of an endpoint, once the endpoint has been given one.
    pub(crate) fn endpoint_breaker(&self, endpoint: &Endpoint) -> Option<Breaker> {
        self.breaker.breaker(endpoint)
    }
}

/// The window of a mesh's breakers cannot be set.
const SAME_WINDOW: &str = "all policies of a mesh count over the same window";

fn bulkhead(policy: &Policy, core: &Core) -> BulkheadLayer<CompleteOnBody> {
    BulkheadLayer::new(policy.limit.max_in_flight)
        .queue(policy.limit.queue)
        .max_wait(policy.limit.max_wait)
        .adaptive(policy.limit.adaptive.then(Adaptive::new))
        .clock(core.clock.clone())
        .completion(CompleteOnBody::new())
}

/// What takes another bulkhead; its limit may change under calls that run.
pub(crate) fn pool_of(policy: &Policy) -> impl PartialEq + use<> {
    let limit = &policy.limit;
    (limit.queue, limit.max_wait, limit.adaptive)
}

/// Has the limit in force hear of a new endpoint's attempts.
#[derive(Debug)]
struct LimitLayer(Arc<ArcSwap<AdaptiveLimit>>);

impl NewLayer<Endpoint> for LimitLayer {
    type Layer = Identity;

    fn layer_for(&self, endpoint: &Endpoint) -> Identity {
        self.0.load().layer_for(endpoint)
    }
}

fn budget(policy: &Policy) -> Budget {
    Budget::new(policy.retry.budget).min_per_second(policy.retry.min_per_second)
}

fn balanced<K, C>(
    layer: BalanceLayer<K, C>,
    policy: &Policy,
    drawn: &OnceLock<Subset>,
    core: &Core,
) -> BalanceLayer<K, C> {
    let client = || match policy.subset.client.as_str() {
        "" => *drawn.get_or_init(|| Subset::of(&core.rng.next_u64().to_string())),
        name => Subset::of(name),
    };
    layer
        .strategy(policy.balance)
        .min_nearby(policy.min_nearby)
        .subset(policy.subset.size.map(|size| client().size(size)))
        .max_out(policy.panic.max_out)
        .min_healthy(policy.panic.min_healthy)
        .slow_start(SlowStart::new(policy.slow_start))
        .hashing(policy.hash.header.as_ref().map(|_| {
            let (seed, capacity) = (policy.hash.seed, policy.hash.capacity);
            Hashing::default().seed(seed).capacity(capacity)
        }))
}

/// A request's key is what it says in this header.
#[derive(Clone, Debug)]
pub struct ByHeader(Option<HeaderName>);

impl KeyOf<Request<Body>> for ByHeader {
    type Key = HeaderValue;

    fn key_of(&self, request: &Request<Body>) -> Option<HeaderValue> {
        request.headers().get(self.0.as_ref()?).cloned()
    }
}

fn outlier_policy(policy: &Policy) -> OutlierPolicy {
    let ejection = &policy.ejection;
    let few = const { NonZeroU32::new(20).expect("not zero") };
    let policy = OutlierPolicy::default()
        .consecutive_failures(None)
        .failure_percentage((ejection.failure_rate, few))
        .eject_for(ejection.eject_for)
        .eject_at_most(ejection.max_eject)
        .max_share(policy.panic.max_out)
        .min_healthy(policy.panic.min_healthy)
        .readmission(readmission(&policy.health));
    if ejection.enabled {
        policy
    } else {
        policy.success_rate(None).failure_percentage(None)
    }
}

fn hedge_layer(
    policy: &Policy,
    budget: &Budget,
    endpoints: &Endpoints,
    core: &Core,
) -> Option<HedgeLayer<HttpReplay, HttpClassify, Joined>> {
    let after = HedgeAfter::Percentile {
        share: policy.hedge.percentile?,
        at_least: Duration::from_millis(1),
    };
    let layer = HedgeLayer::new(budget.clone())
        .joined()
        .beneath_retry()
        .after(after)
        .attempts(policy.hedge.attempts)
        .elsewhere(endpoints.clone())
        .clock(core.clock.clone())
        .replay(HttpReplay::new())
        .classify(HttpClassify::new());
    Some(layer)
}

fn service_breaker(policy: &Policy, scope: &Scope) -> BreakerLayer<ByHead> {
    BreakerLayer::new(breaker_policy(&policy.breaker))
        .name(scope.service.as_str())
        .clock(scope.core.clock.clone())
        .rng(scope.core.rng.clone())
        .classify(ByHead(HttpClassify::new()))
}

fn retry_layer(
    policy: &Policy,
    budget: &Budget,
    core: &Core,
) -> RetryLayer<HttpReplay, HttpClassify, Joined> {
    RetryLayer::new(budget.clone())
        .joined()
        .attempts(policy.retry.attempts)
        .backoff(Backoff::exponential(
            policy.retry.backoff,
            policy.retry.max_backoff,
        ))
        .per_try_timeout(policy.retry.per_try_timeout)
        .clock(core.clock.clone())
        .rng(core.rng.clone())
        .replay(HttpReplay::new())
        .classify(HttpClassify::new())
}

pub(crate) fn breaker_policy(policy: &BreakerPolicy) -> tower_mesh_breaker::Policy {
    tower_mesh_breaker::Policy::default()
        .consecutive_failures(policy.consecutive_failures)
        .failure_rate(policy.failure_rate)
        .window(Window::over(Duration::from_secs(10)))
        .min_calls(const { NonZeroU32::new(10).expect("not zero") })
        .open_for(policy.open_for)
        .open_at_most(policy.max_open)
}

/// Judges a call by its head: the service's breaker stands above the bulkhead's and the attempt's wrappers of the body,
/// and a third one for a verdict that the endpoint's breaker has already had is not worth its cost.
#[derive(Clone, Copy, Debug)]
pub struct ByHead(HttpClassify);

impl<B: http_body::Body> Classify<Response<B>> for ByHead {
    type Answer = Outcome;

    fn classify(
        &self,
        result: Result<&Response<B>, &(dyn Error + Send + Sync + 'static)>,
    ) -> Outcome {
        match self.0.classify(result) {
            Verdict::Done(outcome) => outcome,
            Verdict::Deferred => Outcome::success(),
        }
    }
}
