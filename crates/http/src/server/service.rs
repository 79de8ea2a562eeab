//! The service of a server.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_mesh_core::{BoxError, Instant};
use tower_service::Service;

use super::{
    answer::Failure,
    body::ServerBody,
    counts::{Counts, InFlight},
    future::{ResponseFuture, Serving},
    health::Asked,
    layer::Settings,
};
use crate::{deadline::timeout_of, grpc::is_grpc};

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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let settings = &self.settings;
        if settings.readiness.is_some()
            && let Some(asked) = Asked::by(&request)
        {
            return ResponseFuture::health(asked, request.into_body(), Arc::clone(settings));
        }
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
            span: tracing::debug_span!("serve", method = %request.method(), path = request.uri().path()),
            began: now,
            own,
            at,
            grpc,
        };
        match refused {
            Some(failure) => ResponseFuture::refused(failure, serving),
            None => ResponseFuture::running(self.inner.call(request), serving),
        }
    }
}
