//! The outermost layer: it opens the frame of a call, counts, and turns what comes out into the one error.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower_mesh_core::{
    BoxError, Instant, Kind, Refusal, ServiceName,
    frame::{self, Call},
};
use tower_mesh_http::server::Inherited;
use tower_service::Service;

use crate::{error::Error, errors::Errors, lifecycle::Lifecycle, mesh::Core, metrics::Metrics};

/// What the outermost layer knows of the service.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) service: ServiceName,
    pub(crate) metrics: Metrics,
    pub(crate) errors: Errors,
    /// A call in flight keeps the mesh running, though its caller holds nothing else of it.
    pub(crate) core: Arc<Core>,
}

impl Scope {
    fn shutting_down(&self) -> Error {
        Error::refused(&self.service, Refusal::local(Kind::ShuttingDown))
    }

    /// A call that fails after the mesh has stopped was cut off, whatever the layers saw of that.
    #[cold]
    fn error(&self, error: BoxError) -> Error {
        let error = if self.core.stage.get() != Lifecycle::Stopped {
            Error::new(&self.service, error)
        } else {
            let cut_off = Refusal::local(Kind::ShuttingDown).maybe_sent();
            Error::refused(&self.service, cut_off.with_context(error.to_string()))
        };
        self.errors.note(&error, frame::now(&self.core.clock));
        error
    }
}

/// Wraps the stack of a service.
#[derive(Clone, Debug)]
pub(crate) struct ObserveLayer(pub(crate) Arc<Scope>);

impl<S> tower_layer::Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe {
            inner,
            scope: Arc::clone(&self.0),
        }
    }
}

/// See [`ObserveLayer`].
#[derive(Clone, Debug)]
pub(crate) struct Observe<S> {
    inner: S,
    scope: Arc<Scope>,
}

impl<S> Observe<S> {
    /// The service beneath.
    pub(crate) fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, Req> Service<Req> for Observe<S>
where
    S: Service<Req, Error = BoxError>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.scope.core.stage.is_open() {
            return Poll::Ready(Err(self.scope.shutting_down()));
        }
        self.inner
            .poll_ready(cx)
            .map_err(|error| Error::new(&self.scope.service, error))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        // Ready once does not mean for ever: a mesh that drains meanwhile takes no new call.
        let inner = self
            .scope
            .core
            .stage
            .is_open()
            .then(|| self.inner.call(request));
        ResponseFuture {
            inner,
            counted: Counted {
                scope: Arc::clone(&self.scope),
                began: None,
            },
            span: tracing::trace_span!("call", service = self.scope.service.as_str()),
            call: Call::new(),
        }
    }
}

pin_project! {
    /// The whole of a call: dropping it ends the call.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        // None: refused before it began.
        #[pin]
        inner: Option<F>,
        counted: Counted,
        span: tracing::Span,
        #[pin]
        call: Call,
    }
}

impl<F, T> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, BoxError>>,
{
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _entered = this.span.enter();
        let Counted { scope, began } = this.counted;
        let scope = &**scope;
        let Some(mut inner) = this.inner.as_pin_mut() else {
            return Poll::Ready(Err(scope.shutting_down()));
        };
        this.call.poll(&scope.core.clock, cx, |cx| {
            scope.begin(began);
            let bomb = Bomb { scope, began };
            match inner.as_mut().poll(cx) {
                Poll::Ready(Ok(response)) => {
                    bomb.defuse();
                    scope.count(began, None);
                    Poll::Ready(Ok(response))
                }
                Poll::Ready(Err(error)) => {
                    bomb.defuse();
                    Poll::Ready(Err(scope.fail(began, error)))
                }
                Poll::Pending => {
                    bomb.defuse();
                    Poll::Pending
                }
            }
        })
    }
}

/// Counts a call once it is polled, and its end however it comes.
#[derive(Debug)]
struct Counted {
    scope: Arc<Scope>,
    began: Option<Instant>,
}

impl Scope {
    fn begin(&self, began: &mut Option<Instant>) {
        if began.is_none() {
            let now = frame::now(&self.core.clock);
            *began = Some(now);
            self.metrics.begin();
            // A call that is made to serve a request ends with it.
            if let Some(left) = Inherited::left_here() {
                frame::shorten_deadline(now + left);
            }
        }
    }

    #[cold]
    fn fail(&self, began: &mut Option<Instant>, error: BoxError) -> Error {
        let error = self.error(error);
        self.count(began, Some(error.kind()));
        error
    }

    /// Counts the end, once; `error` is what it failed with, if it did.
    fn count(&self, began: &mut Option<Instant>, error: Option<Option<Kind>>) {
        if let Some(began) = began.take() {
            let took = frame::now(&self.core.clock).since(began);
            self.metrics.end(took, error);
        }
    }
}

/// Makes a panic beneath a failure: a call that is merely dropped afterwards would pass for one whose caller went away.
struct Bomb<'a> {
    scope: &'a Scope,
    began: &'a mut Option<Instant>,
}

impl Bomb<'_> {
    fn defuse(self) {
        std::mem::forget(self);
    }
}

impl Drop for Bomb<'_> {
    #[cold]
    fn drop(&mut self) {
        self.scope.count(self.began, Some(None));
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.began.is_some() {
            self.scope.metrics.abandoned();
        }
    }
}
