//! A server that has too much to do.

use std::{
    convert::Infallible,
    future::{Future as _, Pending, pending, poll_fn},
    num::NonZeroUsize,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower::{BoxError, Layer, Service};
use tower_mesh::{Body, Mesh};

use crate::Setup;

/// A handler that never answers.
#[derive(Clone, Copy, Debug)]
pub struct Stuck;

impl Service<Request<Body>> for Stuck {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pending<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        pending()
    }
}

/// A server of the mesh that runs as many requests as it may, and refuses all others.
///
/// # Errors
///
/// If the mesh does not start.
pub async fn full_server(
    setup: Setup,
) -> Result<
    impl Service<
        Request<Body>,
        Response = Response<impl http_body::Body<Data: Send, Error = BoxError> + Send>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send,
    BoxError,
> {
    let mesh = Mesh::builder("storefront");
    let mesh = match setup.clock {
        Some(clock) => mesh.clock(clock),
        None => mesh,
    };
    let mesh = mesh.start().await?;
    let mut server = mesh.server_layer().limit(NonZeroUsize::MIN).layer(Stuck);
    // Polled here, since a task may not have begun when the first call is measured; it keeps its permit for good.
    let mut first = Box::pin(server.call(Request::new(Body::empty())));
    poll_fn(|cx| Poll::Ready(first.as_mut().poll(cx).is_ready())).await;
    std::mem::forget(first);
    Ok(server)
}
