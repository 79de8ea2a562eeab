//! The service of a bulkhead.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tower::load::{CompleteOnResponse, TrackCompletion};
use tower_mesh_core::BoxError;
use tower_service::Service;

use super::{
    future::BulkheadFuture,
    pool::{Permit, Pool},
};

/// Lets at most so many calls run at once; see [`BulkheadLayer`](super::BulkheadLayer).
///
/// # Clone
///
/// Clones share the permits and the queue. A clone that is not called holds neither.
#[derive(Clone, Debug)]
pub struct Bulkhead<S, C = CompleteOnResponse> {
    inner: S,
    pool: Arc<Pool>,
    completion: C,
}

impl<S, C> Bulkhead<S, C> {
    pub(super) fn new(inner: S, pool: Arc<Pool>, completion: C) -> Self {
        Self {
            inner,
            pool,
            completion,
        }
    }
}

impl<S, C, Req> Service<Req> for Bulkhead<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: TrackCompletion<Permit, S::Response>,
{
    type Response = C::Output;
    type Error = BoxError;
    type Future = BulkheadFuture<S::Future, C>;

    /// Always ready: the permit is taken in the response future, or an idle clone would keep it.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        BulkheadFuture::new(
            self.inner.call(request),
            Permit::wanted(Arc::clone(&self.pool)),
            self.completion.clone(),
        )
    }
}
