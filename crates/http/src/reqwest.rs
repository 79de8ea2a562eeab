//! A reqwest client where an HTTP client is asked for.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use pin_project_lite::pin_project;
use reqwest::Client;
use tower_mesh_core::{BoxError, BoxFuture};
use tower_service::Service;

use crate::body::Body;

/// Calls with a reqwest client: a tower service for `http::Request`, where reqwest's own is one for its own requests. So a client that is
/// configured already calls the endpoints of a service.
///
/// Make the client without redirects and without proxies: a redirect goes where an endpoint says, not to an endpoint, and a
/// proxy would be all that the mesh sees.
///
/// ```
/// use tower_mesh_http::ReqwestClient;
///
/// # fn example() -> Result<ReqwestClient, reqwest::Error> {
/// let client = reqwest::Client::builder()
///     .redirect(reqwest::redirect::Policy::none())
///     .no_proxy()
///     .build()?;
/// Ok(ReqwestClient::new(client))
/// # }
/// ```
///
/// It costs what reqwest costs: the URI is parsed anew for each request.
///
/// # Clone
///
/// A clone is the same client and has the same connections.
///
/// # Errors
///
/// reqwest's; [`Addressed`](crate::Addressed) finds hyper's within and says whether the request may have been sent.
#[derive(Clone)]
pub struct ReqwestClient(Client);

impl ReqwestClient {
    /// Calls with `client`.
    pub const fn new(client: Client) -> Self {
        Self(client)
    }
}

impl From<Client> for ReqwestClient {
    fn from(client: Client) -> Self {
        Self::new(client)
    }
}

impl Service<Request<Body>> for ReqwestClient {
    type Response = Response<reqwest::Body>;
    type Error = BoxError;
    type Future = ReqwestFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> ReqwestFuture {
        let call: BoxFuture<'static, _> = match reqwest::Request::try_from(request.map(body)) {
            Ok(request) => Box::pin(self.0.call(request)),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        };
        ReqwestFuture { call }
    }
}

/// Bytes stay bytes, whose length is known.
fn body(body: Body) -> reqwest::Body {
    if body.is_end_stream() {
        return reqwest::Body::default();
    }
    reqwest::Body::wrap(Shared(Mutex::new(body)))
}

pin_project! {
    /// The future of a [`ReqwestClient`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the request.
    #[must_use = "futures do nothing unless polled"]
    pub struct ReqwestFuture {
        call: BoxFuture<'static, reqwest::Result<reqwest::Response>>,
    }
}

impl Future for ReqwestFuture {
    type Output = Result<Response<reqwest::Body>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.project().call.as_mut().poll(cx))?;
        Poll::Ready(Ok(response.into()))
    }
}

impl fmt::Debug for ReqwestFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestFuture").finish_non_exhaustive()
    }
}

impl fmt::Debug for ReqwestClient {
    // What reqwest prints of its client may be somebody's default headers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestClient").finish_non_exhaustive()
    }
}

/// A body that may be referred to by several threads, as reqwest wants it; it is polled by one, so nobody ever waits for the
/// lock.
struct Shared(Mutex<Body>);

impl http_body::Body for Shared {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let body = self.get_mut().0.get_mut();
        let body = body.unwrap_or_else(PoisonError::into_inner);
        Pin::new(body).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        body.size_hint()
    }
}
