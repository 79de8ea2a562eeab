//! What a gRPC status says beside its code: Google's `ErrorInfo` and `RetryInfo`, in `grpc-status-details-bin`.

use std::{collections::HashMap, time::Duration};

use http::{HeaderName, HeaderValue};
use tonic_types::{ErrorDetails, StatusExt};

const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Who has decided it, as `ErrorInfo` asks.
const DOMAIN: &str = "tower-mesh";

/// The header: the kind as a reason, the id, and when to come back if that is known.
pub(super) fn header(
    code: u8,
    kind: &str,
    message: &str,
    id: &str,
    retry_after: Option<Duration>,
) -> Option<(HeaderName, HeaderValue)> {
    let id = HashMap::from([("id".to_owned(), id.to_owned())]);
    let mut details = ErrorDetails::with_error_info(kind.to_ascii_uppercase(), DOMAIN, id);
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    let code = tonic::Code::from_i32(i32::from(code));
    let status = tonic::Status::with_error_details(code, message, details);
    let mut head = http::HeaderMap::new();
    status.add_header(&mut head).ok()?;
    head.remove(DETAILS).map(|value| (DETAILS, value))
}
