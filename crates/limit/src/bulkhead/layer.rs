//! The layer of a bulkhead.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use tower::load::CompleteOnResponse;
use tower_layer::Layer;
use tower_mesh_core::{Clock, PerCall};

use crate::adaptive::{Adaptive, AdaptiveLimit};

use super::{
    handle::BulkheadHandle,
    pool::{Pool, Settings},
    service::Bulkhead,
};

/// Keeps one slow service from taking everything: at most so many calls run at once.
///
/// A call takes a permit when its future is first polled. If none is free it is refused with
/// [`Overloaded`](super::Overloaded); or, with a [`queue`](Self::queue), it waits for its turn, first come first served,
/// until [`max_wait`](Self::max_wait) or the deadline of the call. The permit is taken before the inner service's
/// readiness is awaited, so who waits holds nothing of the inner service, and it is given back when the call ends, however
/// it ends: with a response (or its body, see [`completion`](Self::completion)), an error, a panic, or a caller who went
/// away.
///
/// | | default | why |
/// |---|---|---|
/// | `queue` | 0 | a queue only helps against short bursts; under overload it makes every answer late |
/// | `max_wait` | 1 s | longer, and whoever called has likely given up |
/// | `by_priority` | no | a client that calls one service knows of few calls that matter less |
///
/// One layer value is one set of permits, however many services it makes; a clone of the layer shares them. A setter
/// makes a layer with permits of its own, so take the [`handle`](Self::handle) last.
///
/// # Example
///
/// ```
/// use std::{convert::Infallible, num::NonZeroUsize, time::Duration};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
/// use tower_mesh_core::{Kind, Refusal};
/// use tower_mesh_limit::BulkheadLayer;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let layer = BulkheadLayer::new(NonZeroUsize::MIN);
/// let handle = layer.handle();
/// let mut service = ServiceBuilder::new()
///     .layer(layer)
///     .service(service_fn(|wait: Duration| async move {
///         tokio::time::sleep(wait).await;
///         Ok::<_, Infallible>("done")
///     }));
///
/// let slow = service.ready().await?.call(Duration::from_millis(1));
/// let second = service.ready().await?.call(Duration::ZERO);
/// let (slow, second) = tokio::join!(slow, second);
///
/// assert_eq!(slow?, "done");
/// let refused = second.unwrap_err();
/// assert_eq!(Refusal::of(&*refused).map(Refusal::kind), Some(Kind::Overloaded));
/// assert_eq!(handle.snapshot().refused, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BulkheadLayer<C = CompleteOnResponse> {
    pool: Arc<Pool>,
    completion: C,
}

const MAX_WAIT: Duration = Duration::from_secs(1);

impl BulkheadLayer {
    /// Lets at most `limit` calls run at once and refuses the rest. Limits above 1,073,741,823 count as that.
    pub fn new(limit: NonZeroUsize) -> Self {
        Self {
            pool: Pool::new(Settings {
                limit,
                queue: 0,
                max_wait: MAX_WAIT,
                critical: None,
                clock: Clock::default(),
                adaptive: None,
            }),
            completion: CompleteOnResponse::default(),
        }
    }
}

impl<C> BulkheadLayer<C> {
    /// Lets this many calls wait for a permit; 0 for none.
    #[must_use]
    pub fn queue(self, places: usize) -> Self {
        self.with(|settings| settings.queue = places)
    }

    /// Refuses a call that has waited this long; zero is as no queue.
    #[must_use]
    pub fn max_wait(self, max_wait: Duration) -> Self {
        self.with(|settings| settings.max_wait = max_wait)
    }

    /// Goes by how much calls matter ([`Priority::here`](tower_mesh_core::Priority::here), when they are first polled), once
    /// there is more to do than may run:
    ///
    /// | class | |
    /// |---|---|
    /// | `Critical` | waits if no permit is free, up to [`max_wait`](Self::max_wait), and goes before all others that wait; `places` may do so beside those of the [`queue`](Self::queue) |
    /// | `Default` | as without priorities |
    /// | `Sheddable` | gets a permit only while nobody waits and less than three quarters of them are out; it never waits |
    ///
    /// Nothing is set aside: while no critical call comes, the others have all there is. So a critical call may have to wait
    /// for one that runs, and with a limit far above what the service can do at once, priorities come too late.
    #[must_use]
    pub fn by_priority(self, places: usize) -> Self {
        self.with(|settings| settings.critical = Some(places))
    }

    /// Lets the limit move below the one given, as the service can bear; nothing for a fixed one, as by default.
    ///
    /// It has to be told how attempts end: see [`adaptive_limit`](Self::adaptive_limit).
    #[must_use]
    pub fn adaptive(self, adaptive: impl Into<Option<Adaptive>>) -> Self {
        self.with(|settings| settings.adaptive = adaptive.into())
    }

    /// Takes time from `clock`; by default from tokio's.
    #[must_use]
    pub fn clock(self, clock: Clock) -> Self {
        self.with(|settings| settings.clock = clock)
    }

    /// Says with `completion` how long the permit of a call lasts; by default until the response is there.
    ///
    /// It is given the [`Permit`](super::Permit) with the response, and keeps the one in the other: with
    /// tower-mesh-http's the permit lasts to the end of the body.
    pub fn completion<C2>(self, completion: C2) -> BulkheadLayer<C2> {
        BulkheadLayer {
            pool: self.pool,
            completion,
        }
    }

    /// A look at this bulkhead, and a hand on its limit.
    pub fn handle(&self) -> BulkheadHandle {
        BulkheadHandle::new(Arc::clone(&self.pool))
    }

    /// Where a limit that [adapts](Self::adaptive) hears how attempts end: give it to the endpoints
    /// ([`NewLayer`](tower_mesh_core::NewLayer)). Of a fixed limit, it hears nothing and does nothing.
    pub fn adaptive_limit(&self) -> AdaptiveLimit {
        AdaptiveLimit::new(Arc::clone(&self.pool))
    }

    /// The setters are called before there are services, so a fresh pool is simpler than settings that can change.
    fn with(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.pool.settings.clone();
        set(&mut settings);
        self.pool = Pool::new(settings);
        self
    }
}

impl<C: Clone> BulkheadLayer<C> {
    /// Puts the bulkhead directly over `inner`, which must be always ready: it is called in `call`, without a clone and
    /// without being asked, and its future is polled once there is a permit.
    ///
    /// Right for a service that reserves nothing in `poll_ready` and begins nothing before its future is polled, as all
    /// of tower-mesh's; it saves a clone for each call.
    pub fn over<S>(&self, inner: S) -> Bulkhead<S, C> {
        Bulkhead::new(inner, Arc::clone(&self.pool), self.completion.clone())
    }
}

impl<S, C: Clone> Layer<S> for BulkheadLayer<C> {
    type Service = Bulkhead<PerCall<S>, C>;

    fn layer(&self, inner: S) -> Self::Service {
        self.over(PerCall::new(inner))
    }
}
