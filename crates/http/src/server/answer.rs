//! What a caller is told when there is no answer of the handler.

use std::{error::Error, fmt, str, time::Duration};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use tower_mesh_core::{Kind, Refusal, Rng};

use super::{authorize::Denied, body::Said};
use crate::context::{NO_RETRY, RETRY_HEADER};

/// Why the handler has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The word for it, one of a closed set.
    pub(super) kind: &'static str,
    http: StatusCode,
    grpc: u8,
    retry_after: Option<Duration>,
    /// It has been tried as often as it may.
    tried: bool,
}

const INVALID_ARGUMENT: u8 = 3;
const DEADLINE_EXCEEDED: u8 = 4;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;
const UNAUTHENTICATED: u8 = 16;

impl Failure {
    pub(super) const INVALID_TIMEOUT: Self =
        Self::new("invalid_timeout", StatusCode::BAD_REQUEST, INVALID_ARGUMENT);
    pub(super) const EXPIRED: Self = Self::new(
        Kind::DeadlineExceeded.as_str(),
        StatusCode::GATEWAY_TIMEOUT,
        DEADLINE_EXCEEDED,
    );
    pub(super) const INTERNAL: Self =
        Self::new("internal", StatusCode::INTERNAL_SERVER_ERROR, INTERNAL);

    const UNAUTHENTICATED: Self =
        Self::new("unauthenticated", StatusCode::UNAUTHORIZED, UNAUTHENTICATED);
    const FORBIDDEN: Self = Self::new(
        "permission_denied",
        StatusCode::FORBIDDEN,
        PERMISSION_DENIED,
    );

    const fn new(kind: &'static str, http: StatusCode, grpc: u8) -> Self {
        Self {
            kind,
            http,
            grpc,
            retry_after: None,
            tried: false,
        }
    }

    /// What an error of the service beneath means to a caller.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        let Some(refusal) = Refusal::of(error) else {
            return match Denied::find(error) {
                Some(denied) if denied.is_unauthenticated() => Self::UNAUTHENTICATED,
                Some(_) => Self::FORBIDDEN,
                None => Self::INTERNAL,
            };
        };
        let (http, grpc) = match refusal.kind() {
            Kind::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, DEADLINE_EXCEEDED),
            Kind::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, RESOURCE_EXHAUSTED),
            Kind::Connect | Kind::Transport | Kind::AttemptsExhausted => {
                (StatusCode::BAD_GATEWAY, UNAVAILABLE)
            }
            _ => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
        };
        Self {
            retry_after: refusal.retry_after(),
            tried: refusal.kind() == Kind::AttemptsExhausted,
            ..Self::new(refusal.kind().as_str(), http, grpc)
        }
    }

    /// Whether the request never came to the handler: nothing of it has been done.
    pub(super) fn is_refusal(self) -> bool {
        matches!(
            self.grpc,
            RESOURCE_EXHAUSTED | UNAUTHENTICATED | PERMISSION_DENIED
        )
    }

    /// The same, if it `was` tried as often as it may whatever the error says.
    pub(super) fn tried(mut self, was: bool) -> Self {
        self.tried |= was;
        self
    }

    /// The answer in the protocol of the request, under an id that stands in the log as well.
    pub(super) fn answer(self, grpc: bool, id: Id) -> Response<Said> {
        if grpc {
            self.trailers_only(id)
        } else {
            self.problem(id)
        }
    }

    /// RFC 9457. Its members are words of ours and numbers: nothing in them needs to be escaped.
    fn problem(self, id: Id) -> Response<Said> {
        let status = self.http;
        let title = status.canonical_reason().unwrap_or_default();
        // Put together and not formatted: who has too much to do says this most.
        let text = [
            r#"{"type":"about:blank","title":""#,
            title,
            r#"","status":"#,
            status.as_str(),
            r#","kind":""#,
            self.kind,
            r#"","id":""#,
            id.hex(&mut [0; 16]),
            r#""}"#,
        ]
        .concat();
        let mut response = said(status, "application/problem+json", text.into());
        if let Some(after) = self.retry_after {
            // Rounded up: who comes too early comes in vain.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
        }
        if self.tried {
            response.headers_mut().insert(RETRY_HEADER, NO_RETRY);
        }
        response
    }

    /// gRPC's answer without a message: its status stands in the head.
    fn trailers_only(self, id: Id) -> Response<Said> {
        let mut response = said(StatusCode::OK, "application/grpc", Bytes::new());
        let headers = response.headers_mut();
        headers.insert(GRPC_STATUS, u16::from(self.grpc).into());
        let message = format!("{} (id {id})", self.kind);
        #[cfg(feature = "grpc")]
        headers.extend(super::details::header(
            self.grpc,
            self.kind,
            &message,
            &id.to_string(),
            self.retry_after,
        ));
        // Letters, digits and brackets: nothing for gRPC's percent-encoding to do.
        if let Ok(message) = HeaderValue::try_from(message) {
            headers.insert(GRPC_MESSAGE, message);
        }
        if self.tried {
            // Anything but digits means so; gRFC A6 names this.
            headers.insert(GRPC_PUSHBACK, HeaderValue::from_static("-1"));
        } else if let Some(after) = self.retry_after {
            let millis = u64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
            headers.insert(GRPC_PUSHBACK, millis.into());
        }
        response
    }
}

/// Has a handler's answer say that it was tried as often as it may, if it is a failure and says nothing of that itself.
#[cold]
pub(super) fn mark_tried<B>(response: &mut Response<B>) {
    let status = response.status();
    let (name, said) = match response.headers().get(GRPC_STATUS) {
        Some(ok) if ok == "0" => return,
        // Of gRPC in trailers nothing can be said any more; a failure without a message has them in its head.
        Some(_) => (GRPC_PUSHBACK, HeaderValue::from_static("-1")),
        None if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            (RETRY_HEADER, NO_RETRY)
        }
        None => return,
    };
    response.headers_mut().entry(name).or_insert(said);
}

pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// What a failure is called in the log and in the answer, and nowhere else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Id(u64);

impl Id {
    pub(super) fn random(rng: &Rng) -> Self {
        Self(rng.next_u64())
    }

    /// Its 16 digits, in `digits`.
    fn hex(self, digits: &mut [u8; 16]) -> &str {
        let nibbles = (0..16).map(|at| self.0 >> (60 - 4 * at) & 15);
        for (digit, nibble) in digits.iter_mut().zip(nibbles) {
            *digit = b"0123456789abcdef"[nibble as usize];
        }
        str::from_utf8(digits).expect("digits are ASCII")
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hex(&mut [0; 16]))
    }
}

/// An answer that no cache may keep.
pub(super) fn said(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Response<Said> {
    let mut response = Response::new(Said {
        bytes,
        ..Said::default()
    });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handlers_failure_is_marked_in_its_protocol_and_what_is_none_or_speaks_for_itself_is_not() {
        let retry = "x-mesh-retry";
        let pushback = "grpc-retry-pushback-ms";
        for (status, came, marked) in [
            (200, None, None),
            (404, None, None),
            (429, None, Some((retry, "no"))),
            (500, None, Some((retry, "no"))),
            (503, Some((retry, "maybe")), Some((retry, "maybe"))),
            (200, Some(("grpc-status", "0")), None),
            (200, Some(("grpc-status", "14")), Some((pushback, "-1"))),
        ] {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some((name, value)) = came {
                let value = HeaderValue::from_static(value);
                response.headers_mut().insert(name, value);
            }
            mark_tried(&mut response);
            let found = [retry, pushback].into_iter().find_map(|name| {
                let value = response.headers().get(name)?;
                Some((name, value.to_str().unwrap()))
            });
            assert_eq!(found, marked, "{status} {came:?}");
        }
    }

    #[test]
    fn an_id_has_sixteen_digits() {
        for (id, digits) in [
            (0x0012_3456_789a_bcdf, "00123456789abcdf"),
            (u64::MAX, "ffffffffffffffff"),
        ] {
            assert_eq!(Id(id).to_string(), digits);
        }
    }
}
