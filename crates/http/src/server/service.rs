//! The service of a server.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response,
    header::{AUTHORIZATION, Entry},
};
use http_body::Body;
use tower_mesh_core::{BoxError, Instant, Priority};
use tower_service::Service;
use tracing::field::{Empty, display};

use super::{
    answer::Failure,
    body::ServerBody,
    counts::{Counts, InFlight},
    future::{ResponseFuture, Serving},
    health::Asked,
    layer::Settings,
};
use crate::{
    context::{self, PRIORITY_HEADER, TraceContext, attempt_of},
    deadline::timeout_of,
    grpc::is_grpc,
};

/// Answers whatever comes; see [`ServerLayer`](super::ServerLayer).
///
/// # Clone
///
/// Clones share what is counted.
#[derive(Clone, Debug)]
pub struct Server<S> {
    inner: S,
    // Shared by the clones, of which a server makes one for each request.
    settings: Arc<Settings>,
    counts: Arc<Counts>,
}

impl<S> Server<S> {
    pub(super) fn new(inner: S, settings: Settings, counts: Arc<Counts>) -> Self {
        Self {
            inner,
            settings: Arc::new(settings),
            counts,
        }
    }
}

impl<S, B, R> Service<Request<B>> for Server<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    B: Body,
    R: Body<Data = Bytes>,
{
    type Response = Response<ServerBody<R>>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future, B>;

    /// Always ready: what is too much is told so.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let settings = &self.settings;
        if settings.readiness.is_some()
            && let Some(asked) = Asked::by(&request)
        {
            return ResponseFuture::health(asked, request.into_body(), Arc::clone(settings));
        }
        hide_secrets(request.headers_mut());
        let grpc = is_grpc(request.headers());
        let now = settings.clock.now();
        let (at, own, refused) = match timeout_of(request.headers()) {
            Err(_) => (Instant::NEVER, false, Some(Failure::INVALID_TIMEOUT)),
            Ok(Some(left)) if left.is_zero() => (now, false, Some(Failure::EXPIRED)),
            Ok(left) => {
                let own = settings
                    .timeout
                    .is_some_and(|own| left.is_none_or(|left| own <= left));
                let left = if own { settings.timeout } else { left };
                (left.map_or(Instant::NEVER, |left| now + left), own, None)
            }
        };
        let serving = Serving {
            settings: Arc::clone(settings),
            in_flight: Some(InFlight::new(&self.counts)),
            span: span(&request),
            began: now,
            own,
            at,
            grpc,
            tried: false,
        };
        match refused {
            Some(failure) => ResponseFuture::refused(failure, serving),
            None => {
                let context = believed(request.headers_mut(), settings.believed);
                ResponseFuture::running(self.inner.call(request), serving, context)
            }
        }
    }
}

/// Who prints the headers does not print what stands there.
fn hide_secrets(headers: &mut HeaderMap) {
    if headers.contains_key(AUTHORIZATION)
        && let Entry::Occupied(mut values) = headers.entry(AUTHORIZATION)
    {
        values
            .iter_mut()
            .for_each(|value| value.set_sensitive(true));
    }
}

fn span<B>(request: &Request<B>) -> tracing::Span {
    let span = tracing::info_span!(
        "serve",
        method = %request.method(),
        path = request.uri().path(),
        trace_id = Empty,
        parent_id = Empty,
        attempt = Empty,
    );
    if span.is_disabled() {
        return span;
    }
    if let Some(trace) = TraceContext::of(request.headers()) {
        span.record(
            "trace_id",
            display(format_args!("{:032x}", trace.trace_id())),
        );
        span.record(
            "parent_id",
            display(format_args!("{:016x}", trace.parent_id())),
        );
    }
    let attempt = attempt_of(request.headers());
    if attempt > 1 {
        span.record("attempt", attempt);
    }
    span
}

/// What the headers say, as far as it is believed; and of the priority they say no more after that.
fn believed(headers: &mut HeaderMap, most: Priority) -> context::Context {
    let context = context::Context::of(headers);
    let priority = context.priority().map(|claimed| claimed.min(most));
    if priority != context.priority()
        || priority.is_none() && headers.contains_key(&PRIORITY_HEADER)
    {
        match priority {
            Some(priority) => {
                headers.insert(PRIORITY_HEADER, HeaderValue::from_static(priority.as_str()))
            }
            None => headers.remove(PRIORITY_HEADER),
        };
    }
    context.with_priority(priority)
}
