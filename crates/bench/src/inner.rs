//! The service beneath everything that is measured.

use std::{
    convert::Infallible,
    future::Future,
    hint::black_box,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower::Service;
use tower_mesh::Body;

/// A service that costs next to nothing and allocates nothing: a number is answered with itself, a request over HTTP
/// with an empty response.
#[derive(Clone, Copy, Debug)]
pub enum Inner {
    /// Ready at once.
    Ready,
    /// Pending once, as every call over a network is.
    Pending,
    /// Ready at once, after so many rounds of arithmetic: work that two threads can do at the same time.
    Busy(u32),
}

/// The answer of [`Inner`].
#[derive(Debug)]
pub struct Answer<T> {
    response: Option<T>,
    pending: bool,
}

impl Inner {
    fn answer<T>(self, response: T) -> Answer<T> {
        if let Self::Busy(rounds) = self {
            for round in 0..rounds {
                black_box(round);
            }
        }
        Answer {
            response: Some(response),
            pending: matches!(self, Self::Pending),
        }
    }
}

impl Service<u64> for Inner {
    type Response = u64;
    type Error = Infallible;
    type Future = Answer<u64>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Answer<u64> {
        self.answer(request)
    }
}

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer<Response<Body>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer<Response<Body>> {
        self.answer(Response::new(request.into_body()))
    }
}

impl<T: Unpin> Future for Answer<T> {
    type Output = Result<T, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.pending) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let response = self.response.take();
        Poll::Ready(Ok(response.expect("not polled after its end")))
    }
}
