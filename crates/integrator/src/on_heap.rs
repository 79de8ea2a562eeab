//! A layer whose calls live on the heap.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tower_service::Service;

/// Has the futures of a service on the heap: for layers that are seldom there, whose futures would make every call larger
/// that does without. Unboxed and beneath retry, a hedge that was off cost each call 450 instructions more than this
/// (`cargo xtask bench "mesh, 1,000"`).
#[derive(Clone, Debug)]
pub struct OnHeap<S>(pub(crate) S);

impl<S, Req> Service<Req> for OnHeap<S>
where
    S: Service<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        Box::pin(self.0.call(request))
    }
}
