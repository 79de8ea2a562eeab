//! What the head and the end of a response say of the endpoint.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode};
use tower_mesh_core::{Outcome, Pushback, Verdict};

use crate::{grpc, retry_after::retry_after};

/// What the head says; `ended` is whether nothing follows it.
pub(crate) fn at_head(
    status: StatusCode,
    headers: &HeaderMap,
    ended: bool,
    now: fn() -> SystemTime,
) -> Verdict {
    let ending = Ending::of(status, headers);
    if let Ending::Told(outcome) = ending {
        return outcome.into();
    }
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return of_error(status, headers, now).into();
    }
    if ended {
        ending.at_end(None).into()
    } else {
        Verdict::Deferred
    }
}

/// 429 and 503 say "too much to do", and only they may say when to come back.
fn of_error(status: StatusCode, headers: &HeaderMap, now: fn() -> SystemTime) -> Outcome {
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let after = retry_after(headers, now);
            Outcome::overload().with_pushback(after.map_or(Pushback::None, Pushback::After))
        }
        _ => Outcome::failure(),
    }
}

/// What the end of a body will mean, as far as the head tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Plain HTTP: an end that comes at all is a success.
    Plain,
    /// gRPC: `grpc-status` in the trailers decides.
    Trailers,
    /// gRPC without a message: `grpc-status` was in the head.
    Told(Outcome),
}

impl Ending {
    pub(crate) fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        if !grpc::is_grpc(headers) {
            return Self::Plain;
        }
        match grpc::outcome(headers) {
            Some(outcome) => Self::Told(outcome),
            None if status == StatusCode::OK => Self::Trailers,
            // gRPC answers 200. Any other status comes from something in between, and is all there is to go by.
            None => Self::Plain,
        }
    }

    /// What the end says, which came with `trailers` or without any.
    pub(crate) fn at_end(self, trailers: Option<&HeaderMap>) -> Outcome {
        match self {
            Self::Plain => Outcome::success(),
            Self::Trailers => trailers.and_then(grpc::outcome).unwrap_or(grpc::NO_STATUS),
            Self::Told(outcome) => outcome,
        }
    }
}
