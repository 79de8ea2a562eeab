//! What makes one call after another, and looks at each answer.

use std::{
    future::{Future, poll_fn},
    hint::black_box,
    pin::pin,
};

use bytes::Buf;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use tower::{BoxError, Service, ServiceExt};
use tower_mesh::Body;

/// A client whose calls are counted: a clone shares what its service's clones share.
pub trait Client: Clone + Send + 'static {
    /// Makes one call, to its end.
    fn call(&mut self, number: u64) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// Calls a service with numbers, which it sends back.
#[derive(Clone, Copy, Debug)]
pub struct Numbers<S>(pub S);

/// Calls a service over HTTP: an empty request, and the response's body read to its end.
#[derive(Clone, Copy, Debug)]
pub struct Requests<S>(pub S);

impl<S> Client for Numbers<S>
where
    S: Service<u64, Response = u64, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
{
    async fn call(&mut self, number: u64) -> Result<(), BoxError> {
        let service = self.0.ready().await.map_err(Into::into)?;
        let answer = service.call(number).await.map_err(Into::into)?;
        assert_eq!(black_box(answer), number);
        Ok(())
    }
}

impl<S, B> Client for Requests<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + 'static,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send,
{
    async fn call(&mut self, _: u64) -> Result<(), BoxError> {
        let service = self.0.ready().await.map_err(Into::into)?;
        let request = Request::new(Body::empty());
        let response = service.call(request).await.map_err(Into::into)?;
        assert_eq!(black_box(response.status()), StatusCode::OK);
        let mut body = pin!(response.into_body());
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            black_box(frame.is_ok());
        }
        Ok(())
    }
}

/// Calls a server that has too much to do over HTTP: an empty request, and what it is told read to its end.
#[derive(Clone, Copy, Debug)]
pub struct Refusals<S>(pub S);

impl<S, B> Client for Refusals<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + 'static,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send,
{
    async fn call(&mut self, _: u64) -> Result<(), BoxError> {
        let service = self.0.ready().await.map_err(Into::into)?;
        let request = Request::new(Body::empty());
        let response = service.call(request).await.map_err(Into::into)?;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let mut body = pin!(response.into_body());
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            black_box(frame.is_ok());
        }
        Ok(())
    }
}

/// Calls a service as programs do: a POST to `http://orders/v1/items` with headers and a body of 1 KiB, and what comes back read
/// to its end.
#[derive(Clone, Debug)]
pub struct Posts<S> {
    service: S,
    uri: Uri,
}

impl<S> Posts<S> {
    /// Calls `service`.
    pub fn new(service: S) -> Self {
        let uri = Uri::from_static("http://orders/v1/items");
        Self { service, uri }
    }

    fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::from(&[b'x'; 1024][..]));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer 0123456789"));
        request
    }
}

impl<S, B> Client for Posts<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + Sync + 'static,
    B: http_body::Body<Data: Buf + Send, Error: Into<BoxError>> + Send,
{
    async fn call(&mut self, _: u64) -> Result<(), BoxError> {
        let request = self.request();
        let service = self.service.ready().await.map_err(Into::into)?;
        let response = service.call(request).await.map_err(Into::into)?;
        let mut body = pin!(response.into_body());
        let mut read = 0;
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            let frame = frame.map_err(Into::into)?;
            read += frame.data_ref().map_or(0, Buf::remaining);
        }
        assert_eq!(black_box(read), 1024);
        Ok(())
    }
}

/// Makes `calls` calls, one after another.
pub(crate) async fn calls<C: Client>(mut client: C, calls: u64) -> Result<(), BoxError> {
    for number in 0..calls {
        client.call(number).await?;
    }
    Ok(())
}
