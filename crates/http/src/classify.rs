//! The classifier of HTTP and gRPC responses, and classifications of each call's own.

mod asked;
mod calls;
mod layer;
#[cfg(feature = "tower-http")]
mod tower_http;

use std::{error::Error, fmt, time::SystemTime};

use http::Response;
use tower_mesh_core::{Classify, Report, Verdict};

#[cfg(feature = "tower-http")]
pub use self::tower_http::FromTowerHttp;
pub(crate) use self::{
    asked::{Asked, Meaning},
    layer::ClassifiedError,
};
pub use self::{
    calls::{ClassifyCall, ClassifyCalls, End, Seen},
    layer::{Classified, ClassifiedFuture, ClassifyLayer},
};
use crate::{error, load, verdict};

/// Judges HTTP and gRPC responses; what the head cannot tell it leaves to the end of the body.
///
/// | response | outcome |
/// |---|---|
/// | 5xx | failure, at the head |
/// | 429, 503 | overload, at the head, with the time that `Retry-After` asks for |
/// | any other, 408 and all of 4xx included | success at the end of the body, failure if that breaks |
/// | any other, without a body (204, HEAD) | success, at the head |
/// | gRPC | what `grpc-status` says, in the head or in the trailers; failure if it is missing |
/// | an error | what the [`Refusal`](tower_mesh_core::Refusal) or hyper's error in its chain says, else failure |
///
/// - 501 counts like every 5xx, as with linkerd, Envoy and Finagle: an endpoint that answers it fast must not look good.
///   408 does not: it is the caller who was slow.
/// - `Retry-After` is seconds or a date, at most 300 s (linkerd's and Envoy's bound); a date in the past means now, junk
///   is ignored, of several the first valid counts.
/// - What says in [`RETRY_HEADER`](crate::context::RETRY_HEADER) that it was tried already is not tried again.
/// - gRPC failures are UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS; RESOURCE_EXHAUSTED is overload;
///   CANCELLED says nothing; every other code is a success. `grpc-retry-pushback-ms` is obeyed to the letter: what is
///   negative or no number means do not try again. gRPC-Web has its trailers in the body, so it counts as plain HTTP.
///
/// Where a call has been classified by a [`ClassifyLayer`] beneath, that is the answer.
///
/// What a server says of its load in [`LOAD_HEADER`](crate::LOAD_HEADER) it reads if it is asked to.
///
/// It may defer, so it needs a completion that sees the end of the body: [`CompleteOnBody`](crate::CompleteOnBody).
#[derive(Clone, Copy)]
pub struct HttpClassify {
    wall_clock: fn() -> SystemTime,
}

impl HttpClassify {
    /// The classifier of the table above.
    pub const fn new() -> Self {
        Self {
            wall_clock: system_time,
        }
    }

    /// Sets what time it is where a `Retry-After` is a date; the system's time unless said.
    #[must_use]
    pub const fn wall_clock(mut self, now: fn() -> SystemTime) -> Self {
        self.wall_clock = now;
        self
    }
}

#[allow(clippy::disallowed_methods)] // A date on the wire is wall time.
fn system_time() -> SystemTime {
    SystemTime::now()
}

impl Default for HttpClassify {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: http_body::Body> Classify<Response<B>> for HttpClassify {
    type Answer = Verdict;

    fn classify(
        &self,
        result: Result<&Response<B>, &(dyn Error + Send + Sync + 'static)>,
    ) -> Verdict {
        match result {
            Ok(response) => match Asked::of(response.extensions()) {
                Some(asked) => asked.head(),
                None => verdict::at_head(
                    response.status(),
                    response.headers(),
                    response.body().is_end_stream(),
                    self.wall_clock,
                ),
            },
            Err(error) => error::outcome(error).into(),
        }
    }

    fn report(&self, response: &Response<B>) -> Option<Report> {
        load::load_of(response.headers())
    }
}

impl fmt::Debug for HttpClassify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClassify").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
