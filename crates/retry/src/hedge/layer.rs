use std::{marker::PhantomData, num::NonZeroU32, sync::Arc};

use tower_layer::Layer;
use tower_mesh_core::{
    ClassifyErrors, Clock, CloneIdempotent, Endpoints, PerCall,
    frame::{Joined, Own},
};

use super::{
    plan::{Plan, Role},
    service::{Hedge, HedgeRules},
    timing::{HedgeAfter, HedgeSnapshot, Timing},
};
use crate::budget::Budget;

/// Makes a second attempt, on another endpoint, beside one that takes longer than nearly all do; the first that is
/// answered wins.
///
/// # What happens to a request
///
/// 1. If it is idempotent and may be sent while it is being sent ([`Replay::can_overlap`]), it is kept; any other passes
///    through.
/// 2. If it has no answer after the [delay](HedgeAfter), another attempt is made beside the first: if the [`Budget`] has
///    one that calls have earned, and if there is [somebody else](Self::elsewhere) to take it.
/// 3. The first response that [`Classify`] takes for a success, or of which only the end will tell, goes to the caller;
///    all other attempts are dropped before. That ends their load and says nothing against their endpoints; only that
///    they have left a call unanswered is remembered for a while, or a hung endpoint would look idle.
/// 4. After a failure the next attempt, if there may be one, is made at once (gRPC's A6) or after the time that the endpoint
///    asked for; those that are out are waited for. When all have failed the caller gets what the last one brought: its
///    response, or [`Exhausted`](crate::Exhausted), which tells of each attempt.
///
/// A call that is not hedged allocates nothing (but for what [`Replay`] keeps), reads no clock that the other layers have
/// not read, takes no lock, and arms no timer: it wishes a wake-up, as all layers do.
///
/// | setting | default | why |
/// |---|---|---|
/// | `after` | the 95th percentile of the last 10 to 20 s, at least 1 ms | "The Tail at Scale"; Finagle |
/// | `attempts` | 2, the first included | Finagle, Envoy, Polly: a third gains little once the second was elsewhere |
/// | `elsewhere` | not known | [`elsewhere`](Self::elsewhere) |
/// | `beneath_retry` | no | [`beneath_retry`](Self::beneath_retry) |
/// | `replay` | [`CloneIdempotent`] | for requests that are plain values |
/// | `classify` | [`ClassifyErrors`] | every response is a success |
///
/// # When to use it
///
/// Against a tail that is the endpoints' own: pauses, noisy neighbours, a long queue at one of many. It needs several of
/// them, with room for what it adds, and enough calls: with a budget of 10 %, ten calls within its window earn one hedge.
/// Where there is no room it does harm, since an endpoint mostly goes on with what was given up. So the mesh has it off
/// unless it is asked for. `cargo run --release -p tower-mesh-retry --example hedge_or_not` says of twenty servers and the
/// mesh's balancer, p99 in ms:
///
/// | the servers' use | 40 % | 60 % | 70 % | 80 % | 90 % |
/// |---|---:|---:|---:|---:|---:|
/// | a heavy tail (log-normal, sigma 1.8) | 120 | 130 | 136 | 142 | 167 |
/// | hedged at p95 | 45 | 48 | 53 | 93 | **427** |
/// | hedged at p99 | 101 | 98 | 102 | 107 | **265** |
/// | pauses of 200 ms, neighbours | 75 | 79 | 82 | 89 | 213 |
/// | hedged at p95 | 48 | 51 | 55 | **156** | **1,080** |
/// | hedged at p99 | 68 | 71 | 72 | 86 | **1,028** |
///
/// Over HTTP/1 a loser costs its connection, which cannot be used again in the middle of an answer; over HTTP/2 it costs a
/// stream.
///
/// Give it the [`Budget`] that the service's [`RetryLayer`](crate::RetryLayer) has, and put it
/// [beneath](Self::beneath_retry) that. gRPC has either the one or the other for each method; but what is slow and what has
/// failed want different answers (at once and elsewhere; later, and also if it is not idempotent but was surely not sent),
/// and one budget bounds both.
///
/// # Clone
///
/// A clone, and every service made by either, shares the budget and what has been learned.
///
/// # Example
///
/// ```
/// use std::{convert::Infallible, sync::atomic::{AtomicU32, Ordering}, time::Duration};
///
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
/// use tower_mesh_core::Ratio;
/// use tower_mesh_retry::{Budget, HedgeAfter, HedgeLayer};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower::BoxError> {
/// static CALLS: AtomicU32 = AtomicU32::new(0);
/// let first_hangs = service_fn(|_request: &'static str| async {
///     let nth = CALLS.fetch_add(1, Ordering::Relaxed);
///     if nth == 0 {
///         std::future::pending::<()>().await;
///     }
///     Ok::<u32, Infallible>(nth)
/// });
///
/// let hedge = HedgeLayer::new(Budget::new(Ratio::ONE))
///     .after(HedgeAfter::Fixed(Duration::from_millis(50)));
/// let mut service = ServiceBuilder::new().layer(hedge).service(first_hangs);
///
/// assert_eq!(service.ready().await?.call("hello").await?, 1);
/// assert_eq!(service.snapshot().won, 1);
/// # Ok(())
/// # }
/// ```
///
/// [`Replay`]: tower_mesh_core::Replay
/// [`Replay::can_overlap`]: tower_mesh_core::Replay::can_overlap
/// [`Classify`]: tower_mesh_core::Classify
#[derive(Clone, Debug)]
pub struct HedgeLayer<R = CloneIdempotent, K = ClassifyErrors, G = Own> {
    rules: HedgeRules<R, K>,
    framing: PhantomData<G>,
}

impl HedgeLayer {
    /// Hedges as far as calls have earned it in `budget`: its `min_per_second` is not for hedges.
    pub fn new(budget: Budget) -> Self {
        Self {
            rules: HedgeRules {
                budget,
                plan: Plan {
                    attempts: const { NonZeroU32::new(2).expect("two is not zero") },
                    role: Role::Alone,
                },
                timing: Arc::new(Timing::new(HedgeAfter::default())),
                endpoints: None,
                replay: CloneIdempotent::default(),
                classify: ClassifyErrors::default(),
                clock: Clock::default(),
            },
            framing: PhantomData,
        }
    }
}

impl<R, K, G> HedgeLayer<R, K, G> {
    /// Sets how long a call waits before it is hedged, and each time before it is hedged again.
    ///
    /// What has been learned before, and counted, stays with the layer that this is called on.
    #[must_use]
    pub fn after(mut self, after: HedgeAfter) -> Self {
        self.rules.timing = Arc::new(Timing::new(after));
        self
    }

    /// Sets how many attempts a call may make, the first included; with one there are no hedges.
    #[must_use]
    pub fn attempts(mut self, attempts: NonZeroU32) -> Self {
        self.rules.plan.attempts = attempts;
        self
    }

    /// Hedges only while some of `endpoints` is open and the call was not sent there: so a hedge is no probe of a
    /// breaker, and does not go to the endpoint that lets the call wait.
    ///
    /// For a layer over a balancer of the same endpoints, which prefers those too. Without it a hedge is sent whoever is
    /// there: over a balancer with one endpoint it would go to that.
    #[must_use]
    pub fn elsewhere(mut self, endpoints: Endpoints) -> Self {
        self.rules.endpoints = Some(endpoints);
        self
    }

    /// Leaves failures to a [`RetryLayer`](crate::RetryLayer) with the same budget right above.
    ///
    /// Then what is slow is the hedge's business, and what has failed the retry's, with its backoff: after a failure no
    /// attempt is made at once, and an attempt that is itself a retry is not hedged. So attempts add up (3 and 2 make 4 at
    /// most) and do not multiply. The retry counts the calls in the budget, this layer does not. If both the attempt and
    /// its hedge fail, the retry judges the error of the last.
    #[must_use]
    pub fn beneath_retry(mut self) -> Self {
        self.rules.plan.role = Role::BeneathRetry;
        self
    }

    /// Sets how requests are kept, and which are idempotent.
    #[must_use]
    pub fn replay<R2>(self, replay: R2) -> HedgeLayer<R2, K, G> {
        self.with(|rules| HedgeRules {
            replay,
            budget: rules.budget,
            plan: rules.plan,
            timing: rules.timing,
            endpoints: rules.endpoints,
            classify: rules.classify,
            clock: rules.clock,
        })
    }

    /// Sets what responses and errors mean.
    #[must_use]
    pub fn classify<K2>(self, classify: K2) -> HedgeLayer<R, K2, G> {
        self.with(|rules| HedgeRules {
            classify,
            budget: rules.budget,
            plan: rules.plan,
            timing: rules.timing,
            endpoints: rules.endpoints,
            replay: rules.replay,
            clock: rules.clock,
        })
    }

    fn with<R2, K2>(
        self,
        change: impl FnOnce(HedgeRules<R, K>) -> HedgeRules<R2, K2>,
    ) -> HedgeLayer<R2, K2, G> {
        HedgeLayer {
            rules: change(self.rules),
            framing: PhantomData,
        }
    }

    /// Says that a layer above opens the frame of the calls, with the same clock: they need no room for a timer.
    ///
    /// Without such a layer a call panics when it is first polled.
    pub fn joined(self) -> HedgeLayer<R, K, Joined> {
        HedgeLayer {
            rules: self.rules,
            framing: PhantomData,
        }
    }

    /// Sets where time comes from.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.rules.clock = clock;
        self
    }

    /// What is known, and what became of hedges.
    pub fn snapshot(&self) -> HedgeSnapshot {
        self.rules.timing.snapshot()
    }
}

impl<R: Clone, K: Clone, G> HedgeLayer<R, K, G> {
    /// Puts it directly over `inner`, which must be always ready: attempts call it without asking.
    ///
    /// Right for a service that reserves nothing in `poll_ready` and begins nothing before its future is polled, as all
    /// of tower-mesh's.
    pub fn over<S>(&self, inner: S) -> Hedge<S, R, K, G> {
        Hedge::new(inner, Arc::new(self.rules.clone()))
    }
}

impl<S, R: Clone, K: Clone, G> Layer<S> for HedgeLayer<R, K, G> {
    type Service = Hedge<PerCall<S>, R, K, G>;

    fn layer(&self, inner: S) -> Self::Service {
        self.over(PerCall::new(inner))
    }
}
