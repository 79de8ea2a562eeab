//! The layer that has calls classified by their requests, too.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_mesh_core::{BoxError, Classify, NewLayer, Outcome, Verdict};
use tower_service::Service;

use super::{Asked, ClassifyCall, ClassifyCalls, End, HttpClassify, asked::Meaning};
use crate::error;

/// Has each call of an endpoint classified by a closure over request, head, trailers and error, or by whatever else
/// [`ClassifyCalls`].
///
/// It stands over an endpoint's service, beneath a mesh, or a layer that takes [`HttpClassify`] and
/// [`CompleteOnBody`](crate::CompleteOnBody): the response carries what it says up to those. So what it says is what
/// breakers, load, ejection and retries go by. Whoever does not use it pays for a look into the extensions of a response; who does,
/// five allocations a call, and for a closure a copy of the heads.
///
/// # Example
///
/// ```
/// use http::{Method, StatusCode};
/// use tower_mesh_core::Outcome;
/// use tower_mesh_http::{ClassifyLayer, Seen};
///
/// // An order that was there a moment ago: this endpoint has lost it. All else as usual.
/// let layer = ClassifyLayer::new(|call: &Seen<'_>| {
///     let head = call.response?;
///     let lost = call.request.method == Method::GET && head.status == StatusCode::NOT_FOUND;
///     lost.then_some(Outcome::failure())
/// });
/// # let _ = layer;
/// ```
///
/// # Clone
///
/// A clone is the same; there is no state.
#[derive(Clone, Copy)]
pub struct ClassifyLayer<C> {
    classify: C,
}

impl<C: ClassifyCalls> ClassifyLayer<C> {
    /// Has calls classified by `classify`.
    pub const fn new(classify: C) -> Self {
        Self { classify }
    }
}

impl<S, C: Clone> Layer<S> for ClassifyLayer<C> {
    type Service = Classified<S, C>;

    fn layer(&self, inner: S) -> Classified<S, C> {
        Classified {
            inner,
            classify: self.classify.clone(),
        }
    }
}

impl<T, C: Clone> NewLayer<T> for ClassifyLayer<C> {
    type Layer = Self;

    fn layer_for(&self, _: &T) -> Self {
        self.clone()
    }
}

impl<C> fmt::Debug for ClassifyLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClassifyLayer").finish_non_exhaustive()
    }
}

/// A service whose calls are classified; made by [`ClassifyLayer`].
///
/// # Errors
///
/// Those of the service. One that is classified otherwise than usual is the source of one that says so.
#[derive(Clone, Copy)]
pub struct Classified<S, C> {
    inner: S,
    classify: C,
}

impl<S, C, B, R> Service<Request<B>> for Classified<S, C>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
    C: ClassifyCalls,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ClassifiedFuture<S::Future, C::Call>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ClassifiedFuture {
            call: Some(self.classify.call(&request)),
            inner: self.inner.call(request),
        }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for Classified<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Classified")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The answer to a request of [`Classified`].
    ///
    /// # Cancel safety
    ///
    /// As that of the service.
    pub struct ClassifiedFuture<F, K> {
        #[pin]
        inner: F,
        call: Option<K>,
    }
}

impl<F, K, R, E> Future for ClassifiedFuture<F, K>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
    R: Body,
    K: ClassifyCall,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(cx));
        let call = this.call.take().expect("polled after it was ready");
        Poll::Ready(match answer {
            Ok(mut response) => {
                let asked = at_head(call, &response);
                response.extensions_mut().insert(asked);
                Ok(response)
            }
            Err(error) => Err(failed(call, error.into())),
        })
    }
}

fn at_head<K: ClassifyCall, R: Body>(mut call: K, response: &Response<R>) -> Asked {
    let usual = Meaning::of(response);
    match call.head(response, HttpClassify::new().classify(Ok(response))) {
        Verdict::Done(outcome) => Asked::said(outcome, usual),
        // Nothing follows, so nobody has to wait to know; and retries can.
        Verdict::Deferred if response.body().is_end_stream() => {
            let said = call.end(End::Complete(None), Some(usual.at_end(None)));
            Asked::said(said.unwrap_or(Outcome::neutral()), usual)
        }
        Verdict::Deferred => Asked::deferred(Box::new(|end, usual| call.end(end, usual)), usual),
    }
}

/// `error`, with what is said of it if that is not the usual.
fn failed(call: impl ClassifyCall, error: BoxError) -> BoxError {
    let usual = error::outcome(&*error);
    let said = call.end(End::Error(&*error), Some(usual));
    match said.unwrap_or(Outcome::neutral()) {
        outcome if outcome == usual => error,
        outcome => ClassifiedError { outcome, error }.into(),
    }
}

impl<F, K> fmt::Debug for ClassifiedFuture<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClassifiedFuture").finish_non_exhaustive()
    }
}

/// What a classification said of an error.
#[derive(Debug)]
pub(crate) struct ClassifiedError {
    pub(crate) outcome: Outcome,
    error: BoxError,
}

impl fmt::Display for ClassifiedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "classified as {:?}", self.outcome.class())
    }
}

impl Error for ClassifiedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.error)
    }
}
