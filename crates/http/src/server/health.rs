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
    layer::Settings,
    watch::{Serving, Watching},
};
use crate::{grpc::is_grpc, probe::message};

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

    pub(super) fn reasons(&self) -> Vec<&'static str> {
        (self.0)()
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

    /// Whether the question has a body.
    pub(super) fn is_grpc(self) -> bool {
        matches!(self, Self::Check | Self::Watch)
    }

    /// The answer to `question`, the body of what is asked.
    pub(super) fn answer(self, question: &[u8], settings: &Settings) -> Response<Said> {
        let readiness = settings.readiness.as_ref().expect("else nobody is asked");
        match self {
            Self::Live => said(
                StatusCode::OK,
                JSON,
                Bytes::from_static(br#"{"live":true}"#),
            ),
            Self::Ready => ready_or_not(&readiness.reasons()),
            Self::Check => match asks_for_known(question, settings) {
                None => only_status(INVALID_ARGUMENT),
                Some(false) => only_status(NOT_FOUND),
                Some(true) => checked(readiness.reasons().is_empty()),
            },
            Self::Watch => match asks_for_known(question, settings) {
                None => only_status(INVALID_ARGUMENT),
                Some(known) => {
                    let mut response = said(StatusCode::OK, GRPC, Bytes::new());
                    let watching = Watching::new(readiness.clone(), settings.clock.clone(), known);
                    response.body_mut().watching = Some(Box::new(watching));
                    response
                }
            },
        }
    }
}

/// Whether the service that is asked for is one of this process; nothing, if nobody can tell which that is.
fn asks_for_known(question: &[u8], settings: &Settings) -> Option<bool> {
    let name = message::service(question)?;
    let known = settings.grpc_services.as_ref();
    // No name is that of the whole process.
    Some(name.is_empty() || known.is_none_or(|known| known.iter().any(|known| known == name)))
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

fn checked(serving: bool) -> Response<Said> {
    let message = if serving { Serving::Yes } else { Serving::No }.message();
    let mut response = said(StatusCode::OK, GRPC, Bytes::from_static(message));
    let ok = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
    response.body_mut().trailers = Some(Box::new(ok));
    response
}

const GRPC: &str = "application/grpc";

const INVALID_ARGUMENT: &str = "3";
const NOT_FOUND: &str = "5";

fn only_status(status: &'static str) -> Response<Said> {
    let mut response = said(StatusCode::OK, GRPC, Bytes::new());
    let status = HeaderValue::from_static(status);
    response.headers_mut().insert(GRPC_STATUS, status);
    response
}

/// Reads what is asked to its end: HTTP/2 would reset a stream that is answered before.
pub(super) fn poll_question<B: Body>(
    mut body: Pin<&mut B>,
    question: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    while question.len() <= LONGEST_QUESTION {
        let Some(Ok(frame)) = ready!(body.as_mut().poll_frame(cx)) else {
            break;
        };
        let Ok(mut data) = frame.into_data() else {
            continue;
        };
        while data.has_remaining() && question.len() <= LONGEST_QUESTION {
            let chunk = data.chunk();
            let length = chunk.len().min(LONGEST_QUESTION + 1);
            question.extend_from_slice(&chunk[..length]);
            data.advance(length);
        }
    }
    Poll::Ready(())
}
