//! A client of a service for those who speak gRPC.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tonic::{Code, Status};
use tower_layer::Layer;
use tower_mesh_core::{BoxError, Endpoint, Kind, Layered, NewLayer, ServiceName};
use tower_mesh_http::{Addressed, Body, HttpClient};
use tower_service::Service;

use crate::{
    error::Error,
    mesh::Mesh,
    service::{MeshLayer, MeshService, Over},
    stack::{ResponseBody, ResponseFuture},
};

impl Mesh {
    /// A client of a service for gRPC, where a tonic `Channel` went: `OrdersClient::new(mesh.grpc("orders")?)`.
    ///
    /// It calls each endpoint over HTTP/2, with TLS if that is set. The status of a call, in its trailers too, is what breakers and
    /// balancer judge an endpoint by; its deadline goes along as `grpc-timeout`. A call is a POST, so it is sent again only
    /// if it was surely not sent before, or the request is [marked](crate::http::Idempotent) idempotent.
    ///
    /// # Errors
    ///
    /// As [`service`](Self::service).
    pub fn grpc(&self, service: &str) -> Result<GrpcService, Error> {
        Ok(GrpcService(self.state(service)?.grpc()))
    }

    /// The same, with a layer of your own over each endpoint, as in [`service_with`](Self::service_with): a
    /// [`ClassifyLayer`](crate::http::ClassifyLayer), so that you say which
    /// codes are failures.
    ///
    /// Each client made so has connections of its own, so keep one and clone it.
    ///
    /// ```no_run
    /// # fn example(mesh: tower_mesh::Mesh) -> Result<(), tower_mesh::Error> {
    /// use tower_mesh::{core::Outcome, http::{ClassifyLayer, Seen}};
    ///
    /// // NOT_FOUND, which is an answer like any other as a rule: this endpoint has lost it.
    /// let lost = |call: &Seen<'_>| (call.grpc_status()? == "5").then_some(Outcome::failure());
    /// let orders = mesh.grpc_with("orders", ClassifyLayer::new(lost))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`service`](Self::service).
    pub fn grpc_with<L>(&self, service: &str, layer: L) -> Result<GrpcService<Over<L>>, Error>
    where
        L: NewLayer<Endpoint> + Send + Sync + 'static,
        L::Layer: Layer<Addressed<HttpClient>, Service: Clone + Send + Sync + 'static>,
    {
        let state = self.state(service)?;
        let endpoints = Layered::new(state.http2(), layer);
        Ok(MeshLayer::new(state).over(endpoints).into())
    }
}

/// A client of one service of the mesh for generated tonic clients; from [`Mesh::grpc`].
///
/// Over endpoints that are called otherwise, such as by a tonic `Channel` each with settings of your own, it is made from a [`MeshService`]:
///
/// ```
/// use http::Request;
/// use tonic::transport::Channel;
/// use tower::ServiceBuilder;
/// use tower_mesh::{Body, Endpoint, GrpcService, Mesh};
///
/// # async fn example(mesh: Mesh) -> Result<(), tower_mesh::Error> {
/// let channels = |endpoint: &Endpoint| {
///     let uri = format!("http://{}", endpoint.address());
///     let channel = Channel::from_shared(uri).expect("an address is an authority").connect_lazy();
///     ServiceBuilder::new()
///         .map_request(|request: Request<Body>| request.map(tonic::body::Body::new))
///         .service(channel)
/// };
/// let orders = GrpcService::from(mesh.layer("orders")?.over(channels));
/// # let _ = orders;
/// # Ok(())
/// # }
/// ```
///
/// # Clone
///
/// As of [`MeshService`], which it is over HTTP/2.
///
/// # Errors
///
/// [`GrpcError`], of which tonic makes the [`Status`] that is in it.
pub struct GrpcService<S = Addressed<HttpClient>>(MeshService<S>);

impl<S> GrpcService<S> {
    /// The service that it calls.
    pub fn name(&self) -> &ServiceName {
        self.0.name()
    }
}

impl<S: Clone> GrpcService<S> {
    /// The same client, whose calls take no longer than `timeout`, whatever the settings say.
    #[must_use]
    pub fn with_timeout(&self, timeout: std::time::Duration) -> Self {
        Self(self.0.with_timeout(timeout))
    }
}

impl<S> From<MeshService<S>> for GrpcService<S> {
    fn from(service: MeshService<S>) -> Self {
        Self(service)
    }
}

impl<S: Clone> Clone for GrpcService<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> fmt::Debug for GrpcService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GrpcService").field(&self.0).finish()
    }
}

impl<S, B, Res> Service<Request<B>> for GrpcService<S>
where
    S: Service<Request<Body>, Response = Response<Res>> + Clone,
    S::Error: Into<BoxError>,
    Res: http_body::Body,
    Res::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<Res>>;
    type Error = GrpcError;
    type Future = GrpcFuture<ResponseFuture<S>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GrpcError>> {
        self.0.poll_ready(cx).map_err(GrpcError::new)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        GrpcFuture {
            call: self.0.call(request.map(Body::new)),
        }
    }
}

pin_project! {
    /// The future of [`GrpcService`].
    ///
    /// # Cancel safety
    ///
    /// As of a [`MeshService`]'s.
    #[must_use = "futures do nothing unless polled"]
    pub struct GrpcFuture<F> {
        #[pin]
        call: F,
    }
}

impl<F, T> Future for GrpcFuture<F>
where
    F: Future<Output = Result<T, Error>>,
{
    type Output = Result<T, GrpcError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.project().call.poll(cx));
        Poll::Ready(answer.map_err(GrpcError::new))
    }
}

impl<F> fmt::Debug for GrpcFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcFuture").finish_non_exhaustive()
    }
}

/// A call through the mesh has failed; its source is the gRPC [`Status`] for it, whose source is the mesh's [`Error`].
#[derive(Debug)]
pub struct GrpcError(Box<Status>);

impl GrpcError {
    #[cold]
    fn new(error: Error) -> Self {
        let mut status = Status::new(code(error.kind()), error.to_string());
        status.set_source(Arc::new(error));
        Self(Box::new(status))
    }

    /// The status that callers are given.
    pub fn status(&self) -> &Status {
        &self.0
    }
}

/// What gRPC says for it: a caller may try again after `UNAVAILABLE`, and waits after `RESOURCE_EXHAUSTED`.
fn code(kind: Option<Kind>) -> Code {
    match kind {
        Some(Kind::DeadlineExceeded) => Code::DeadlineExceeded,
        Some(Kind::Overloaded) => Code::ResourceExhausted,
        Some(_) => Code::Unavailable,
        None => Code::Unknown,
    }
}

impl fmt::Display for GrpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.message())
    }
}

impl std::error::Error for GrpcError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}
