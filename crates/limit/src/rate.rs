//! At most so many calls a second.

use std::{
    error::Error,
    fmt,
    future::Future,
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{self, Clock as _},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_mesh_core::{BoxError, Clock, Kind, PerCall, Refusal, frame};
use tower_service::Service;

/// Keeps to what a service allows: at most so many calls a second, and so many at once.
///
/// A call more is refused at once with [`RateLimited`], which says when there will be room; a retry above obeys that,
/// within the deadline of the call. It does not wait by itself: a queue in front of a rate makes every call late that
/// comes after a burst. Calls are counted when they are first polled, by the `governor` crate's GCRA: one atomic word, no
/// lock, no task.
///
/// tower's `RateLimit` is not `Clone`, counts for each service by itself, and lets whoever comes wait without a bound.
///
/// ```
/// use std::{convert::Infallible, num::NonZeroU32, time::Duration};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
/// use tower_mesh_core::Refusal;
/// use tower_mesh_limit::RateLayer;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let mut service = ServiceBuilder::new()
///     .layer(RateLayer::per_second(NonZeroU32::new(10).unwrap()).burst(NonZeroU32::MIN))
///     .service(service_fn(|n: u32| async move { Ok::<_, Infallible>(n + 1) }));
///
/// assert_eq!(service.ready().await?.call(1).await?, 2);
/// let refused = service.ready().await?.call(1).await.unwrap_err();
/// let refusal = Refusal::of(&*refused).unwrap();
/// assert_eq!(refusal.retry_after(), Some(Duration::from_millis(100)));
/// # Ok(())
/// # }
/// ```
///
/// # Clone
///
/// One layer value, its clones and all services made by them share one rate. A setter makes a layer with a count of its
/// own.
#[derive(Clone, Debug)]
pub struct RateLayer {
    quota: Quota,
    clock: Clock,
    bucket: Arc<Bucket>,
}

impl RateLayer {
    /// At most so many calls a second, and as many at once.
    pub fn per_second(calls: NonZeroU32) -> Self {
        Self::new(Quota::per_second(calls), Clock::default())
    }

    /// At most so many calls a minute, and as many at once.
    pub fn per_minute(calls: NonZeroU32) -> Self {
        Self::new(Quota::per_minute(calls), Clock::default())
    }

    fn new(quota: Quota, clock: Clock) -> Self {
        let bucket = Arc::new(Bucket::new(quota, &clock));
        Self {
            quota,
            clock,
            bucket,
        }
    }

    /// Lets so many calls through at once after a quiet time; by default those of the whole second, or minute.
    #[must_use]
    pub fn burst(self, calls: NonZeroU32) -> Self {
        Self::new(self.quota.allow_burst(calls), self.clock)
    }

    /// Takes time from `clock`; by default from tokio's.
    #[must_use]
    pub fn clock(self, clock: Clock) -> Self {
        Self::new(self.quota, clock)
    }

    /// Puts the rate directly over `inner`, which must be always ready and begin nothing before its future is polled, as
    /// all of tower-mesh's; it saves a clone for each call.
    pub fn over<S>(&self, inner: S) -> Rate<S> {
        Rate {
            inner,
            bucket: Arc::clone(&self.bucket),
        }
    }
}

impl<S> Layer<S> for RateLayer {
    type Service = Rate<PerCall<S>>;

    fn layer(&self, inner: S) -> Self::Service {
        self.over(PerCall::new(inner))
    }
}

/// Counts calls, by the time of the poll.
#[derive(Debug)]
struct Bucket {
    limiter: RateLimiter<NotKeyed, InMemoryState, PollTime, NoOpMiddleware<Nanos>>,
    clock: PollTime,
}

impl Bucket {
    fn new(quota: Quota, clock: &Clock) -> Self {
        let clock = PollTime(clock.clone());
        Self {
            limiter: RateLimiter::direct_with_clock(quota, clock.clone()),
            clock,
        }
    }

    fn take(&self) -> Result<(), RateLimited> {
        let refuse = |later: governor::NotUntil<Nanos>| {
            RateLimited::new(later.wait_time_from(self.clock.now()))
        };
        self.limiter.check().map_err(refuse)
    }
}

/// The clock as governor asks it: a call reads it no more often for that.
#[derive(Clone, Debug)]
struct PollTime(Clock);

impl clock::Clock for PollTime {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(frame::now(&self.0).as_nanos())
    }
}

/// Lets at most so many calls a second through; see [`RateLayer`].
///
/// # Clone
///
/// Clones share one count.
#[derive(Clone, Debug)]
pub struct Rate<S> {
    inner: S,
    bucket: Arc<Bucket>,
}

impl<S, Req> Service<Req> for Rate<S>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = RateFuture<S::Future>;

    /// Always ready: a call is counted in the response future.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        RateFuture {
            inner: self.inner.call(request),
            wanted: Some(Arc::clone(&self.bucket)),
        }
    }
}

pin_project! {
    /// The response of a [`Rate`].
    ///
    /// # Cancel safety
    ///
    /// Until it is first polled it counts for nothing; from then on it counts, whatever becomes of it.
    pub struct RateFuture<F> {
        #[pin]
        inner: F,
        // None: it has been counted.
        wanted: Option<Arc<Bucket>>,
    }
}

impl<F, T, E> Future for RateFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(bucket) = this.wanted.take() {
            bucket.take()?;
        }
        this.inner.poll(cx).map_err(Into::into)
    }
}

impl<F> fmt::Debug for RateFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateFuture")
            .field("counted", &self.wanted.is_none())
            .finish_non_exhaustive()
    }
}

/// More calls were made than may be.
///
/// The inner service has not seen the request. The [`Refusal`] of kind [`Kind::Overloaded`] is its `source()`.
#[derive(Clone, Debug)]
pub struct RateLimited {
    retry_after: Duration,
    refusal: Refusal,
}

impl RateLimited {
    fn new(retry_after: Duration) -> Self {
        let refusal = Refusal::local(Kind::Overloaded)
            .with_retry_after(Some(retry_after))
            .with_context(format!(
                "as many calls were made as may be, for {retry_after:?}"
            ));
        Self {
            retry_after,
            refusal,
        }
    }

    /// When there will be room for one.
    pub fn retry_after(&self) -> Duration {
        self.retry_after
    }
}

impl fmt::Display for RateLimited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)
    }
}

impl Error for RateLimited {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.refusal)
    }
}
