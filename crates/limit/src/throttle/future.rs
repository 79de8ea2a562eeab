//! A call that may not be made.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_mesh_core::{BoxError, Class, Classify, Verdict, frame};

use super::{
    counts::{Count, Counts, refused_share},
    error::Throttled,
    layer::Settings,
};

pin_project! {
    /// The response of a [`Throttle`](super::Throttle).
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the inner call. It then counts as accepted: nobody has refused it.
    pub struct ThrottleFuture<F, K> {
        // None: it was refused.
        #[pin]
        inner: Option<F>,
        classify: K,
        begun: Begun,
    }
}

/// Counts the call when it is begun, and that it was accepted unless something else is found out.
struct Begun {
    settings: Settings,
    counts: Arc<Counts>,
    open: bool,
    asked: bool,
}

impl<F, K> ThrottleFuture<F, K> {
    pub(super) fn new(inner: F, settings: Settings, classify: K, counts: Arc<Counts>) -> Self {
        Self {
            inner: Some(inner),
            classify,
            begun: Begun {
                settings,
                counts,
                open: false,
                asked: false,
            },
        }
    }
}

impl<F, K, T, E> Future for ThrottleFuture<F, K>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
    K: Classify<T>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Err(throttled) = this.begun.ask() {
            this.inner.set(None);
            return Poll::Ready(Err(throttled.into()));
        }
        let inner = this.inner.as_mut().as_pin_mut();
        let inner = inner.expect("`ThrottleFuture` polled after it was ready");
        let result = ready!(frame::observed(|| inner.poll(cx))).map_err(Into::into);
        this.inner.set(None);
        let verdict = match &result {
            Ok(response) => this.classify.classify(Ok(response)),
            Err(error) => this.classify.classify(Err(&**error)),
        };
        this.begun.end(verdict.into());
        Poll::Ready(result)
    }
}

impl Begun {
    /// Counts the call when it is first polled, and decides whether it is made.
    fn ask(&mut self) -> Result<(), Throttled> {
        if std::mem::replace(&mut self.asked, true) {
            return Ok(());
        }
        let now = frame::now(&self.settings.clock);
        let (requests, accepts) = self.counts.sum(now);
        // Before it is made, or a burst would be over before it is seen (go-zero's issue 5011).
        self.counts.add(Count::Request, now);
        let share = refused_share(requests, accepts, self.settings.headroom);
        if share > 0.0 && self.settings.rng.unit() < share {
            return Err(Throttled::new(requests, accepts, share));
        }
        self.open = true;
        Ok(())
    }

    fn end(&mut self, verdict: Verdict) {
        let refused = match verdict {
            Verdict::Done(outcome) => !matches!(outcome.class(), Class::Success | Class::Neutral),
            Verdict::Deferred => false,
        };
        if refused {
            self.open = false;
        }
        self.accept();
    }

    fn accept(&mut self) {
        if std::mem::take(&mut self.open) {
            self.counts
                .add(Count::Accept, frame::now(&self.settings.clock));
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // A call whose time is up was not accepted, and neither was one that panicked.
        if !frame::is_timing_out() && !std::thread::panicking() {
            self.accept();
        }
    }
}

impl<F, K> fmt::Debug for ThrottleFuture<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThrottleFuture")
            .field("asked", &self.begun.asked)
            .finish_non_exhaustive()
    }
}
