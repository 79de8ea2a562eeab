//! Tells a limit how the calls of a service end.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_mesh_core::{BoxError, Class, Classify, ClassifyErrors, Instant, Outcome, frame};
use tower_service::Service;

use crate::bulkhead::Pool;

/// Tells an [`AdaptiveLimit`](super::AdaptiveLimit) how the calls of a service end, when it has no endpoints.
#[derive(Clone, Debug)]
pub struct SampleLayer<K = ClassifyErrors> {
    pool: Arc<Pool>,
    classify: K,
}

impl SampleLayer {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self {
            pool,
            classify: ClassifyErrors::default(),
        }
    }
}

impl<K> SampleLayer<K> {
    /// Decides with `classify` what an answer says of the service; errors alone speak against it if nothing is said.
    #[must_use]
    pub fn classify<L>(self, classify: L) -> SampleLayer<L> {
        SampleLayer {
            pool: self.pool,
            classify,
        }
    }
}

impl<S, K: Clone> Layer<S> for SampleLayer<K> {
    type Service = Sampled<S, K>;

    fn layer(&self, inner: S) -> Self::Service {
        Sampled {
            inner,
            pool: Arc::clone(&self.pool),
            classify: self.classify.clone(),
        }
    }
}

/// A service whose calls an adaptive limit hears of; see [`AdaptiveLimit::sample`](super::AdaptiveLimit::sample).
#[derive(Clone, Debug)]
pub struct Sampled<S, K = ClassifyErrors> {
    inner: S,
    pool: Arc<Pool>,
    classify: K,
}

impl<S, K, Req> Service<Req> for Sampled<S, K>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    K: Classify<S::Response, Answer = Outcome>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = SampledFuture<S::Future, K>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        SampledFuture {
            inner: self.inner.call(request),
            classify: self.classify.clone(),
            sample: Sample {
                pool: Arc::clone(&self.pool),
                began: None,
                told: false,
            },
        }
    }
}

pin_project! {
    /// The response of a [`Sampled`].
    ///
    /// # Cancel safety
    ///
    /// Dropped because the time of the call is up, it counts as a call that timed out; otherwise it says nothing.
    pub struct SampledFuture<F, K> {
        #[pin]
        inner: F,
        classify: K,
        sample: Sample,
    }
}

impl<F, K, T, E> Future for SampledFuture<F, K>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
    K: Classify<T, Answer = Outcome>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.sample.begin();
        let inner = this.inner;
        let result = ready!(frame::observed(|| inner.poll(cx))).map_err(Into::into);
        this.sample.end(match &result {
            Ok(response) => this.classify.classify(Ok(response)),
            Err(error) => this.classify.classify(Err(&**error)),
        });
        Poll::Ready(result)
    }
}

/// One call, from its first poll.
struct Sample {
    pool: Arc<Pool>,
    began: Option<Instant>,
    told: bool,
}

impl Sample {
    fn begin(&mut self) {
        if self.began.is_none() {
            self.began = Some(self.pool.now());
        }
    }

    /// Only the first outcome counts, and only of a call that began.
    fn end(&mut self, outcome: Outcome) {
        let Some(began) = self.began.filter(|_| !self.told) else {
            return;
        };
        self.told = true;
        if outcome.class() == Class::Neutral {
            return;
        }
        let now = self.pool.now();
        let took = now.since(began);
        if outcome.is_success() {
            let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            self.pool.succeeded(nanos, now);
        } else {
            self.pool.failed(outcome, took, now);
        }
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        if frame::is_timing_out() {
            self.end(Outcome::timeout());
        }
    }
}

impl<F, K> fmt::Debug for SampledFuture<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SampledFuture")
            .field("told", &self.sample.told)
            .finish_non_exhaustive()
    }
}
