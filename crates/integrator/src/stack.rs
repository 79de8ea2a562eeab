//! The stack of a service: the one place that says in which order a call passes the layers, and why.

use std::{error::Error, num::NonZeroU32, sync::Arc, time::Duration};

use http::{Request, Response};
use tower::{
    ServiceBuilder,
    layer::layer_fn,
    load::CompleteOnResponse,
    util::{Either, option_layer},
};
use tower_mesh_balance::{Balance, BalanceLayer};
use tower_mesh_breaker::{Breaker, BreakerLayer, CircuitBreaker, Window};
use tower_mesh_core::{
    Attempt, Classify, Endpoint, Endpoints, Layered, NewService, Outcome, ServiceName, Verdict,
    frame::Joined,
};
use tower_mesh_discovery::{Discovered, DiscoveryLayer};
use tower_mesh_http::{Body, CompleteOnBody, HttpClassify, HttpReplay, TrackedBody};
use tower_mesh_limit::{
    Bulkhead, BulkheadHandle, BulkheadLayer, BulkheadSnapshot, Deadline, DeadlineLayer, Permit,
};
use tower_mesh_retry::{Backoff, Budget, BudgetSnapshot, Retry, RetryLayer};
use tower_service::Service;

use crate::{
    mesh::Core,
    metrics::Metrics,
    observe::{self, Observe, ObserveLayer, Scope},
    policy::{BreakerPolicy, Policy},
};

/// The layers of one service: one state, however many stacks are built from them.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    pub(crate) scope: Arc<Scope>,
    pub(crate) timeout: Duration,
    discovery: DiscoveryLayer<Joined>,
    bulkhead: BulkheadLayer<CompleteOnBody>,
    permits: BulkheadHandle,
    service_breaker: Option<BreakerLayer<ByHead>>,
    retry: RetryLayer<HttpReplay, HttpClassify, Joined>,
    budget: Budget,
    balance: BalanceLayer<HttpClassify, CompleteOnBody>,
    breaker: BreakerLayer,
}

/// The whole stack over endpoint services of type `S`.
pub(crate) type Stack<S> = Observe<Deadline<Beneath<S>, Joined>>;

/// What lies beneath the deadline.
type Beneath<S> = Discovered<Bulkhead<Guarded<S>, CompleteOnBody>, Joined>;

/// The attempts of a call, beneath the service's breaker if it has one.
type Guarded<S> = Either<CircuitBreaker<Attempts<S>, ByHead, CompleteOnResponse>, Attempts<S>>;

/// The attempts of a call.
type Attempts<S> =
    Retry<Balance<S, HttpClassify, CompleteOnBody>, HttpReplay, HttpClassify, Joined>;

/// The body of a response: what the endpoint sends, with the attempt and the permit that end with it.
pub type ResponseBody<B> = TrackedBody<TrackedBody<B, Attempt>, Permit>;

/// The future of a call.
pub type ResponseFuture<S> =
    observe::ResponseFuture<<Deadline<Beneath<S>, Joined> as Service<Request<Body>>>::Future>;

impl Layers {
    /// Stacks the layers over the services that `connect` makes for endpoints.
    pub(crate) fn over<N>(&self, connect: N) -> Stack<N::Service>
    where
        N: NewService<Endpoint> + Send + Sync + 'static,
        N::Service: Clone + Send + Sync + 'static,
    {
        ServiceBuilder::new()
            // Counts, traces, opens the frame, makes the one error. Above everything because it has to see refusals of
            // every layer, and because the frame has to be open before anybody asks for the time.
            .layer(ObserveLayer(Arc::clone(&self.scope)))
            // Above discovery, bulkhead and retry because waiting there is the caller's time, too; beneath the frame so
            // that its timer is the call's one timer.
            .layer(layer_fn(|beneath| {
                self.deadline(self.timeout).over(beneath)
            }))
            // Above the bulkhead so that calls which wait for the first look-up hold no permits; beneath the deadline so
            // that a registry that does not answer cannot hang a call.
            .layer(layer_fn(|beneath| self.discovery.over(beneath)))
            // Above retry because one call takes one permit, however many attempts it makes: else retries would starve
            // fresh calls. Beneath discovery so that a name that does not exist takes none.
            .layer(layer_fn(|beneath| self.bulkhead.over(beneath)))
            // Above retry because it judges calls, not attempts; beneath the bulkhead so that a call which is refused a
            // permit never holds a probe's place.
            .layer(option_layer(self.service_breaker.clone()))
            // Above the balancer so that each attempt picks again, and elsewhere; beneath the bulkhead so that its budget
            // is asked only for calls that run.
            .layer(layer_fn(|beneath| self.retry.over(beneath)))
            // Above the endpoints because it chooses among them; beneath retry because an attempt is one endpoint's.
            .layer(self.balance.clone())
            // Beneath the balancer, with the endpoint: it writes the gate that the balancer reads, so "not now" means
            // another endpoint and never an error. It adds no service.
            .service(Layered::new(connect, self.breaker.clone()))
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
    /// The layers of `service`, as its policy says.
    pub(crate) fn new(service: &ServiceName, endpoints: &Endpoints, core: &Arc<Core>) -> Self {
        let policy = core.policy(service);
        let (clock, rng) = (core.clock.clone(), core.rng.clone());
        let bulkhead = BulkheadLayer::new(policy.limit.max_in_flight)
            .queue(policy.limit.queue)
            .max_wait(policy.limit.max_wait)
            .clock(clock.clone())
            .completion(CompleteOnBody::new());
        let budget = Budget::new(policy.retry.budget).min_per_second(policy.retry.min_per_second);
        let breaker = |name: &str| {
            BreakerLayer::new(breaker_policy(&policy.breaker))
                .name(name)
                .clock(clock.clone())
                .rng(rng.clone())
        };
        let service_breaker = || breaker(service.as_str()).classify(ByHead(HttpClassify::new()));
        Self {
            scope: Arc::new(Scope {
                service: service.clone(),
                metrics: Metrics::new(service, &*core.recorder),
                core: Arc::clone(core),
            }),
            timeout: policy.timeout,
            discovery: core.discovery.layer(service).joined(),
            permits: bulkhead.handle(),
            bulkhead,
            service_breaker: policy.breaker.service.then(service_breaker),
            retry: retry_layer(policy, &budget)
                .clock(clock.clone())
                .rng(rng.clone()),
            budget,
            balance: BalanceLayer::new(endpoints.clone())
                .strategy(policy.balance)
                .max_out(policy.panic.max_out)
                .min_healthy(policy.panic.min_healthy)
                .clock(clock.clone())
                .rng(rng.clone())
                .classify(HttpClassify::new())
                .completion(CompleteOnBody::new()),
            breaker: breaker(service.as_str()),
        }
    }

    /// How full the bulkhead is.
    pub(crate) fn permits(&self) -> BulkheadSnapshot {
        self.permits.snapshot()
    }

    /// How the retry budget stands.
    pub(crate) fn budget(&self) -> BudgetSnapshot {
        self.budget.snapshot(self.scope.core.clock.now())
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

fn retry_layer(policy: &Policy, budget: &Budget) -> RetryLayer<HttpReplay, HttpClassify, Joined> {
    RetryLayer::new(budget.clone())
        .joined()
        .attempts(policy.retry.attempts)
        .backoff(Backoff::exponential(
            policy.retry.backoff,
            policy.retry.max_backoff,
        ))
        .per_try_timeout(policy.retry.per_try_timeout)
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
