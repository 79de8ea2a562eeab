//! The future of an addressed request.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower_mesh_core::BoxError;

use crate::error;

pin_project! {
    /// The answer to a request of [`Addressed`](crate::Addressed).
    ///
    /// # Cancel safety
    ///
    /// As that of the client.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        address: SocketAddr,
    }
}

impl<F> ResponseFuture<F> {
    pub(crate) const fn new(inner: F, address: SocketAddr) -> Self {
        Self { inner, address }
    }
}

impl<F, Res, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Res, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.inner
            .poll(cx)
            .map_err(|error| error::of_request(error.into(), *this.address))
    }
}
