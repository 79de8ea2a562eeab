//! `grpc.health.v1.Health/Watch`: the health of the process, as it changes.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use tower_mesh_core::{Clock, Sleep};

use super::{answer::GRPC_STATUS, health::Readiness};

/// How often it is looked whether something has changed: callers hear of a drain well within the time that it waits for
/// them to.
const EVERY: Duration = Duration::from_millis(500);

/// `ServingStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serving {
    Yes,
    No,
    /// There is no such service here; there may be one later.
    Unknown,
}

impl Serving {
    /// `HealthCheckResponse`: one field of one byte, behind gRPC's prefix of flag and length.
    pub(super) const fn message(self) -> &'static [u8] {
        match self {
            Self::Yes => &[0, 0, 0, 0, 2, 0x08, 1],
            Self::No => &[0, 0, 0, 0, 2, 0x08, 2],
            Self::Unknown => &[0, 0, 0, 0, 2, 0x08, 3],
        }
    }
}

/// UNAVAILABLE: whoever watches asks again, and elsewhere.
const GONE: HeaderValue = HeaderValue::from_static("14");

/// The body of the answer: what holds now, and then each change, until the process is on its way out.
pub(super) struct Watching {
    readiness: Readiness,
    clock: Clock,
    /// Whether there is such a service.
    known: bool,
    said: Option<Serving>,
    sleep: Option<Sleep>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Watches,
    Ends,
    Over,
}

impl Watching {
    pub(super) const fn new(readiness: Readiness, clock: Clock, known: bool) -> Self {
        Self {
            readiness,
            clock,
            known,
            said: None,
            sleep: None,
            stage: Stage::Watches,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        loop {
            match self.stage {
                Stage::Watches => {}
                Stage::Ends => {
                    self.stage = Stage::Over;
                    let trailers = HeaderMap::from_iter([(GRPC_STATUS, GONE)]);
                    return Poll::Ready(Some(Frame::trailers(trailers)));
                }
                Stage::Over => return Poll::Ready(None),
            }
            let reasons = self.readiness.reasons();
            // A watch that went on would keep its connection from being drained.
            if reasons
                .iter()
                .any(|reason| matches!(*reason, "draining" | "stopped"))
            {
                self.stage = Stage::Ends;
            }
            let now = match (self.known, reasons.is_empty()) {
                (false, _) => Serving::Unknown,
                (true, true) => Serving::Yes,
                (true, false) => Serving::No,
            };
            if self.said.replace(now) != Some(now) {
                let message = Bytes::from_static(now.message());
                return Poll::Ready(Some(Frame::data(message)));
            }
            if self.stage == Stage::Watches {
                let sleep = self.sleep.get_or_insert_with(|| self.clock.sleep(EVERY));
                ready!(Pin::new(sleep).poll(cx));
                self.sleep = None;
            }
        }
    }
}

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watching")
            .field("said", &self.said)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}
