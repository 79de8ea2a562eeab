//! The layer of a throttle.

use std::{fmt, sync::Arc, time::Duration};

use tower_layer::Layer;
use tower_mesh_core::{ClassifyErrors, Clock, PerCall, Rng};

use super::{
    counts::{Counts, refused_share},
    service::Throttle,
};

/// Makes fewer calls to a service that accepts few: what would be refused there is refused here, and costs nobody
/// anything.
///
/// Every call counts as asked for when it is begun, also one that is then refused here; it counts as accepted when the
/// classifier calls its outcome a success, or leaves it open, or when its caller goes away. As long as at least half of
/// the calls of the last two minutes were accepted ([`headroom`](Self::headroom) 2) none is refused; below that so many
/// are that the service sees about twice of what it accepts (Google SRE, "Handling overload").
///
/// Use it where a service protects itself by refusing and its refusals cost it more than it can spare. It needs some
/// traffic to know anything; a breaker is for what does not answer at all.
///
/// ```
/// use std::convert::Infallible;
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
/// use tower_mesh_limit::ThrottleLayer;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let mut service = ServiceBuilder::new()
///     .layer(ThrottleLayer::new())
///     .service(service_fn(|n: u32| async move { Ok::<_, Infallible>(n + 1) }));
/// assert_eq!(service.ready().await?.call(1).await?, 2);
/// # Ok(())
/// # }
/// ```
///
/// # Clone
///
/// One layer value, its clones and all services made by them share one count.
#[derive(Clone, Debug)]
pub struct ThrottleLayer<K = ClassifyErrors> {
    settings: Settings,
    classify: K,
    counts: Arc<Counts>,
}

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) headroom: f64,
    pub(super) clock: Clock,
    pub(super) rng: Rng,
}

/// As Google's and go-zero's.
const HEADROOM: f64 = 2.0;
const WINDOW: Duration = Duration::from_secs(120);

impl ThrottleLayer {
    /// A throttle with a headroom of 2 over the last two minutes.
    pub fn new() -> Self {
        Self {
            settings: Settings {
                headroom: HEADROOM,
                clock: Clock::default(),
                rng: Rng::default(),
            },
            classify: ClassifyErrors::default(),
            counts: Arc::new(Counts::new(WINDOW)),
        }
    }
}

impl Default for ThrottleLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> ThrottleLayer<K> {
    /// How many times as many calls are made as are accepted; less than 1, or no number, counts as 1.
    #[must_use]
    pub fn headroom(mut self, times: f64) -> Self {
        self.settings.headroom = times.max(1.0);
        self
    }

    /// Takes time from `clock`; tokio's unless said.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Takes chance from `rng`.
    #[must_use]
    pub fn rng(mut self, rng: Rng) -> Self {
        self.settings.rng = rng;
        self
    }

    /// Lets `classify` say what was accepted; errors are what was not unless said.
    #[must_use]
    pub fn classify<K2>(self, classify: K2) -> ThrottleLayer<K2> {
        ThrottleLayer {
            settings: self.settings,
            classify,
            counts: self.counts,
        }
    }

    /// A look at the throttle from outside.
    pub fn handle(&self) -> ThrottleHandle {
        ThrottleHandle {
            settings: self.settings.clone(),
            counts: Arc::clone(&self.counts),
        }
    }
}

impl<S, K: Clone> Layer<S> for ThrottleLayer<K> {
    type Service = Throttle<PerCall<S>, K>;

    fn layer(&self, inner: S) -> Self::Service {
        self.over(PerCall::new(inner))
    }
}

impl<K: Clone> ThrottleLayer<K> {
    /// Puts the throttle directly over `inner`, which must be always ready and begin nothing before its future is
    /// polled, as all of tower-mesh's; it saves a clone for each call.
    pub fn over<S>(&self, inner: S) -> Throttle<S, K> {
        Throttle {
            inner,
            settings: self.settings.clone(),
            classify: self.classify.clone(),
            counts: Arc::clone(&self.counts),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("headroom", &self.headroom)
            .finish_non_exhaustive()
    }
}

/// Shows how much a throttle refuses.
///
/// # Clone
///
/// A clone is a handle on the same throttle.
#[derive(Clone, Debug)]
pub struct ThrottleHandle {
    settings: Settings,
    counts: Arc<Counts>,
}

/// What a throttle had counted at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ThrottleSnapshot {
    /// Calls that were asked for.
    pub requests: u64,
    /// Calls that were accepted.
    pub accepts: u64,
    /// The share of calls that is refused, 0 to 1.
    pub refused_share: f64,
}

impl ThrottleHandle {
    /// What it has counted now.
    pub fn snapshot(&self) -> ThrottleSnapshot {
        let (requests, accepts) = self.counts.sum(self.settings.clock.now());
        ThrottleSnapshot {
            requests,
            accepts,
            refused_share: refused_share(requests, accepts, self.settings.headroom),
        }
    }
}
