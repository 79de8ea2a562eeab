//! Calling by operation: for callers who think in names and values, not in requests.

use std::fmt;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use serde::{Serialize, de::DeserializeOwned};
use tower_mesh_core::{BoxError, Kind, Refusal};
use tower_mesh_http::{Body, Idempotent};

use crate::{config::Operation, error::Error, mesh::Mesh, service::MeshService};

/// An answer may be that large; more is refused, so that an endpoint cannot fill this process's memory.
const LARGEST_ANSWER: usize = 16 * 1024 * 1024;

impl Mesh {
    /// Calls `operation` of `service` with `payload` as JSON, and reads the answer as JSON.
    ///
    /// An operation is `POST /{operation}` and is not idempotent, unless `[services.NAME.operations.OPERATION]` says
    /// otherwise. A payload that is JSON's `null`, such as `()`, sends no body; an empty answer reads as `null`.
    ///
    /// # Errors
    ///
    /// [`Error`], also for an answer that is no success ([`Error::status`]), none of the expected type, or larger than
    /// 16 MiB. The time of the call covers the whole of the answer.
    pub async fn call<P, T>(&self, service: &str, operation: &str, payload: P) -> Result<T, Error>
    where
        P: Serialize,
        T: DeserializeOwned,
    {
        let mut client = self.service(service)?;
        let how = self.operation(client.name(), operation);
        if let Some(timeout) = how.as_ref().and_then(|how| how.timeout) {
            client = client.with_timeout(timeout);
        }
        let fail = |error: BoxError| Error::new(client.name(), error);
        let payload = serde_json::to_vec(&payload).map_err(|error| fail(error.into()))?;
        let request = request(operation, how.as_ref(), payload).map_err(fail)?;
        let limit = client.timeout();
        let late = self.clock().sleep(limit);
        tokio::select! {
            biased;
            answer = answer(&client, request) => answer,
            () = late => Err(Error::refused(
                client.name(),
                Refusal::remote(Kind::DeadlineExceeded, tower_mesh_core::Sent::Maybe)
                    .with_context(format!("the answer was not complete after {limit:?}")),
            )),
        }
    }
}

fn request(
    operation: &str,
    how: Option<&Operation>,
    payload: Vec<u8>,
) -> Result<Request<Body>, BoxError> {
    let path = match how.and_then(|how| how.path.clone()) {
        Some(path) => path,
        None if is_name(operation) => format!("/{operation}").parse()?,
        None => {
            return Err(format!(
                "{operation:?} is no operation: letters, digits, '-', '_' and '.' only"
            )
            .into());
        }
    };
    let mut request = Request::new(Body::empty());
    *request.method_mut() = how.map_or(http::Method::POST, |how| how.method.clone());
    *request.uri_mut() = Uri::from(path);
    if payload != b"null" {
        *request.body_mut() = Body::from(payload);
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
    }
    if let Some(idempotent) = how.and_then(|how| how.idempotent) {
        let mark = if idempotent {
            Idempotent::Yes
        } else {
            Idempotent::No
        };
        request.extensions_mut().insert(mark);
    }
    Ok(request)
}

/// A name becomes a path, so it may steer none.
fn is_name(operation: &str) -> bool {
    tower_mesh_core::ServiceName::new(operation).is_ok()
}

async fn answer<T: DeserializeOwned>(
    client: &MeshService,
    request: Request<Body>,
) -> Result<T, Error> {
    let response = client.send(request).await?;
    let status = response.status();
    if !status.is_success() {
        return Err(Error::new(client.name(), Box::new(NoSuccess { status })));
    }
    let fail = |error: BoxError| Error::new(client.name(), error);
    let body = Limited::new(response.into_body(), LARGEST_ANSWER);
    let body: Bytes = body.collect().await.map_err(fail)?.to_bytes();
    let text: &[u8] = if body.is_empty() { b"null" } else { &body };
    serde_json::from_slice(text).map_err(|error| fail(error.into()))
}

/// A service answered, but with no success.
#[derive(Debug)]
struct NoSuccess {
    status: StatusCode,
}

impl fmt::Display for NoSuccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the answer is {}", self.status)
    }
}

impl std::error::Error for NoSuccess {}

impl Error {
    /// The status of an answer to [`Mesh::call`] that was no success.
    pub fn status(&self) -> Option<StatusCode> {
        let source = std::error::Error::source(self)?;
        source.downcast_ref().map(|NoSuccess { status }| *status)
    }
}
