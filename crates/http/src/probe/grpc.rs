//! Whether an endpoint's own health service says that it serves.

use std::future::Future;

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, client};
use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{CONTENT_TYPE, TE, USER_AGENT},
    uri::PathAndQuery,
};
use hyper_util::rt::TokioIo;
use tower_mesh_core::Endpoint;

use crate::{
    client::{HttpEndpoints, Protocol},
    grpc,
    probe::{ProbeError, Way, beside, message},
    service::Target,
};

/// Finds an endpoint well if its gRPC health service (`grpc.health.v1.Health/Check`) says `SERVING`, or if it has none.
///
/// Each check is a call of its own connection, over HTTP/2 without negotiation; over TLS if calls are ([`over`](Self::over)). At most 4 KiB of an answer are read, of its
/// headers 16 KiB; the connection ends with the check.
///
/// An endpoint that answers `UNIMPLEMENTED` is well: it speaks gRPC and was never asked to say more (gRFC A17). One that
/// does not know the [service](Self::service) answers `NOT_FOUND`, which is a failure.
///
/// It has no time limit: whoever checks has.
///
/// # Errors
///
/// [`ProbeError`]. A serving status other than `SERVING` [counts at once](ProbeError::is_definite), as in Envoy.
///
/// # Cancel safety
///
/// Dropping a check closes its connection.
///
/// # Example
///
/// ```no_run
/// # async fn example(endpoint: tower_mesh_core::Endpoint) -> Result<(), tower_mesh_http::ProbeError> {
/// use tower_mesh_http::GrpcProbe;
///
/// GrpcProbe::new().service("shop.Orders").check(&endpoint).await
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct GrpcProbe {
    service: String,
    way: Way,
}

const CHECK: PathAndQuery = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
const STATUS: &str = "grpc-status";
const UNIMPLEMENTED: &[u8] = b"12";
/// A status is two bytes; servers of later versions may say more.
const MOST_BODY: u32 = 4 * 1024;
const MOST_HEAD: u32 = 16 * 1024;

impl GrpcProbe {
    /// Asks how the server as a whole is.
    pub const fn new() -> Self {
        Self {
            service: String::new(),
            way: Way::new(),
        }
    }

    /// Asks how this service of the server is, by its full name.
    #[must_use]
    pub fn service(mut self, name: &str) -> Self {
        name.clone_into(&mut self.service);
        self
    }

    /// Asks this port of the endpoint's host.
    #[must_use]
    pub const fn port(mut self, port: u16) -> Self {
        self.way.port = Some(port);
        self
    }

    /// Asks over what these clients call endpoints over: if that is TLS, over nothing else, and the endpoint has to prove the
    /// same name.
    #[must_use]
    pub fn over(mut self, endpoints: &HttpEndpoints) -> Self {
        self.way.over(endpoints, Protocol::Http2);
        self
    }

    /// Asks `endpoint`. It has to be polled on a tokio runtime with I/O.
    pub fn check(
        &self,
        endpoint: &Endpoint,
    ) -> impl Future<Output = Result<(), ProbeError>> + Send + 'static + use<> {
        let (way, to) = (self.way.clone(), self.way.to(endpoint));
        let (request, body) = (request(&to), message::request(&self.service));
        async move {
            let stream = way.connect(to.address()).await?;
            let (sender, connection) = client::Builder::new()
                .enable_push(false)
                .initial_window_size(MOST_BODY)
                .max_header_list_size(MOST_HEAD)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(ProbeError::exchange)?;
            beside(connection, exchange(sender, request, body)).await
        }
    }
}

fn request(to: &Target) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = CHECK.into();
    to.rewrite(request.uri_mut());
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(USER_AGENT, HeaderValue::from_static("tower-mesh-probe"));
    request
}

async fn exchange(
    sender: client::SendRequest<Bytes>,
    request: Request<()>,
    body: Bytes,
) -> Result<(), ProbeError> {
    let mut sender = sender.ready().await.map_err(ProbeError::exchange)?;
    let (response, mut stream) = sender
        .send_request(request, false)
        .map_err(ProbeError::exchange)?;
    stream.send_data(body, true).map_err(ProbeError::exchange)?;
    let (head, mut body) = response.await.map_err(ProbeError::exchange)?.into_parts();
    if head.status != StatusCode::OK || !grpc::is_grpc(&head.headers) {
        return Err(ProbeError::no_grpc("it speaks HTTP alone"));
    }
    if let Some(status) = head.headers.get(STATUS) {
        return told(status);
    }
    let message = read(&mut body).await?;
    let trailers = body.trailers().await.map_err(ProbeError::exchange)?;
    match trailers.as_ref().and_then(|fields| fields.get(STATUS)) {
        Some(status) if status == "0" => match message::serving(&message)? {
            message::SERVING => Ok(()),
            other => Err(ProbeError::serving(other)),
        },
        Some(status) => told(status),
        None => Err(ProbeError::no_grpc("it ended without a status")),
    }
}

/// What a status says that comes without a message.
fn told(status: &HeaderValue) -> Result<(), ProbeError> {
    match status.as_bytes() {
        UNIMPLEMENTED => Ok(()),
        b"0" => Err(ProbeError::no_grpc("it has no message")),
        other => Err(ProbeError::code(&String::from_utf8_lossy(other))),
    }
}

/// The body, as long as it is no longer than an answer may be.
async fn read(body: &mut RecvStream) -> Result<Bytes, ProbeError> {
    let mut read = BytesMut::new();
    while let Some(chunk) = body.data().await {
        read.extend_from_slice(&chunk.map_err(ProbeError::exchange)?);
        // Nothing more is asked for: who has filled the window gets no more room, and is not waited for.
        if read.len() >= MOST_BODY as usize {
            return Err(ProbeError::no_grpc("it is too long"));
        }
    }
    Ok(read.freeze())
}
