//! A client of a service for those who speak gRPC.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Request;
use pin_project_lite::pin_project;
use tonic::{Code, Status};
use tower_mesh_core::{BoxError, Kind, ServiceName};
use tower_mesh_http::{Addressed, Body, HttpClient};
use tower_service::Service;

use crate::{error::Error, mesh::Mesh, service::MeshService, stack};

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
}

/// A client of one service of the mesh for generated tonic clients; from [`Mesh::grpc`].
///
/// # Clone
///
/// As of [`MeshService`], which it is over HTTP/2.
///
/// # Errors
///
/// [`GrpcError`], of which tonic makes the [`Status`] that is in it.
#[derive(Clone, Debug)]
pub struct GrpcService(MeshService<Addressed<HttpClient>>);

impl GrpcService {
    /// The service that it calls.
    pub fn name(&self) -> &ServiceName {
        self.0.name()
    }

    /// The same client, whose calls take no longer than `timeout`, whatever the settings say.
    #[must_use]
    pub fn with_timeout(&self, timeout: std::time::Duration) -> Self {
        Self(self.0.with_timeout(timeout))
    }
}

type Answer = <MeshService as Service<Request<Body>>>::Response;

impl<B> Service<Request<B>> for GrpcService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Answer;
    type Error = GrpcError;
    type Future = GrpcFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GrpcError>> {
        self.0.poll_ready(cx).map_err(GrpcError::new)
    }

    fn call(&mut self, request: Request<B>) -> GrpcFuture {
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
    pub struct GrpcFuture {
        #[pin]
        call: stack::ResponseFuture<Addressed<HttpClient>>,
    }
}

impl Future for GrpcFuture {
    type Output = Result<Answer, GrpcError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.project().call.poll(cx));
        Poll::Ready(answer.map_err(GrpcError::new))
    }
}

impl fmt::Debug for GrpcFuture {
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
