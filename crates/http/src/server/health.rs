//! The paths that tell whether the process lives and is ready: they are answered before anything else is asked.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;

use super::{
    answer::{GRPC_STATUS, said},
    body::Said,
};
use crate::grpc::is_grpc;

pub(super) const LIVE: &str = "/health/live";
pub(super) const READY: &str = "/health/ready";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// A name of a service may have 253 characters; what is longer is no question.
const LONGEST_QUESTION: usize = 1024;

/// Why the process is not ready; empty if it is.
#[derive(Clone)]
pub(super) struct Readiness(Arc<dyn Fn() -> Vec<&'static str> + Send + Sync>);

impl Readiness {
    pub(super) fn new(reasons: impl Fn() -> Vec<&'static str> + Send + Sync + 'static) -> Self {
        Self(Arc::new(reasons))
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readiness")
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Live,
    Ready,
    Check,
    Watch,
}

impl Asked {
    pub(super) fn by<B>(request: &Request<B>) -> Option<Self> {
        let path = request.uri().path();
        // Nearly every request is told from them by these two letters.
        if !path.starts_with("/h") && !path.starts_with("/g") {
            return None;
        }
        let read = matches!(*request.method(), Method::GET | Method::HEAD);
        match path {
            LIVE if read => Some(Self::Live),
            READY if read => Some(Self::Ready),
            CHECK if is_grpc(request.headers()) => Some(Self::Check),
            WATCH if is_grpc(request.headers()) => Some(Self::Watch),
            _ => None,
        }
    }

    pub(super) fn answer(self, readiness: &Readiness) -> Response<Said> {
        match self {
            Self::Live => said(
                StatusCode::OK,
                JSON,
                Bytes::from_static(br#"{"live":true}"#),
            ),
            Self::Ready => ready_or_not(&(readiness.0)()),
            Self::Check => checked((readiness.0)().is_empty()),
            Self::Watch => unimplemented(),
        }
    }
}

const JSON: &str = "application/json";

/// The reasons are words of a closed set.
fn ready_or_not(reasons: &[&'static str]) -> Response<Said> {
    if reasons.is_empty() {
        return said(
            StatusCode::OK,
            JSON,
            Bytes::from_static(br#"{"ready":true}"#),
        );
    }
    let reasons = reasons.join(r#"",""#);
    let text = format!(r#"{{"ready":false,"reasons":["{reasons}"]}}"#);
    said(StatusCode::SERVICE_UNAVAILABLE, JSON, text.into())
}

/// `HealthCheckResponse`: one field of one byte, behind gRPC's prefix of flag and length.
fn checked(serving: bool) -> Response<Said> {
    const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 1];
    const NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 2];
    let message = if serving { SERVING } else { NOT_SERVING };
    let mut response = said(StatusCode::OK, GRPC, Bytes::from_static(message));
    let ok = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
    response.body_mut().trailers = Some(Box::new(ok));
    response
}

const GRPC: &str = "application/grpc";

/// UNIMPLEMENTED, which says to a client that it should not ask again: gRPC's own then take the server for healthy.
fn unimplemented() -> Response<Said> {
    let mut response = said(StatusCode::OK, GRPC, Bytes::new());
    let status = HeaderValue::from_static("12");
    response.headers_mut().insert(GRPC_STATUS, status);
    response
}

/// Reads what is asked to its end: HTTP/2 would reset a stream that is answered before. What it says, the name of a
/// service, changes nothing.
pub(super) fn poll_question<B: Body>(
    mut body: Pin<&mut B>,
    read: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<()> {
    while *read <= LONGEST_QUESTION {
        let Some(Ok(frame)) = ready!(body.as_mut().poll_frame(cx)) else {
            break;
        };
        *read += frame.data_ref().map_or(0, Buf::remaining);
    }
    Poll::Ready(())
}
