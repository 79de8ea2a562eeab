//! A body that does what a test tells it.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Data(&'static str),
    Trailers(HeaderMap),
    Error,
    Pending,
    Panic,
}

/// Takes one step for each poll.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    steps: VecDeque<Step>,
    /// Whether it says so when the last step is taken.
    tells_end: bool,
}

impl Script {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            tells_end: false,
        }
    }

    pub(crate) fn telling_its_end(mut self) -> Self {
        self.tells_end = true;
        self
    }
}

/// `grpc-status` in trailers.
pub(crate) fn grpc_status(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        http::HeaderValue::from_static(code),
    )])
}

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(match self.steps.pop_front() {
            None => None,
            Some(Step::Data(data)) => Some(Ok(Frame::data(Bytes::from_static(data.as_bytes())))),
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Error) => Some(Err(io::ErrorKind::ConnectionReset.into())),
            Some(Step::Pending) => return Poll::Pending,
            Some(Step::Panic) => panic!("as the script says"),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.tells_end && self.steps.is_empty()
    }
}
