//! The balancer.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower::load::{CompleteOnResponse, TrackCompletion};
use tower_mesh_core::{Attempt, BoxError, Classify, ClassifyErrors, Promises};
use tower_service::Service;

use crate::{future::ResponseFuture, pool::Pool};

/// One service for all endpoints of a service; made by [`BalanceLayer`](crate::BalanceLayer).
///
/// It is always ready: which endpoint takes a call is decided when the call's future is first polled, and it waits for
/// that endpoint there.
///
/// # Clone
///
/// A clone shares everything and allocates nothing. As long as one is held, the endpoints are kept up to date.
///
/// # Errors
///
/// [`NoEndpoint`](crate::NoEndpoint) if no endpoint may take the call; else what the endpoint's service answered, in
/// [`AtEndpoint`](tower_mesh_core::AtEndpoint).
pub struct Balance<S, K = ClassifyErrors, C = CompleteOnResponse> {
    pool: Arc<Pool<S, (K, C)>>,
}

impl<S, K, C> Balance<S, K, C> {
    pub(crate) fn new(pool: Arc<Pool<S, (K, C)>>) -> Self {
        Self { pool }
    }

    pub(crate) fn pool(&self) -> &Pool<S, (K, C)> {
        &self.pool
    }
}

impl<S, K, C, Req> Service<Req> for Balance<S, K, C>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    K: Classify<S::Response>,
    C: TrackCompletion<Attempt, S::Response> + Promises<K::Answer>,
{
    type Response = C::Output;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req, (K, C)>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ResponseFuture::new(Arc::clone(&self.pool), request)
    }
}

impl<S, K, C> Clone for Balance<S, K, C> {
    fn clone(&self) -> Self {
        Self {
            pool: Arc::clone(&self.pool),
        }
    }
}

impl<S, K, C> fmt::Debug for Balance<S, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance").field("pool", &self.pool).finish()
    }
}
