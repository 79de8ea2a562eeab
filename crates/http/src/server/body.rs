//! The body of an answer: the handler's, or one of ours.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{counts::InFlight, watch::Watching};

pin_project! {
    /// The body of an answer of a [`Server`](super::Server): the handler's, unchanged, or what the layer itself says.
    ///
    /// The request counts as in flight until it is dropped.
    #[derive(Debug)]
    pub struct ServerBody<B> {
        #[pin]
        kind: Kind<B>,
        held: Option<InFlight>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = KindProj]
    enum Kind<B> {
        Theirs { #[pin] body: B },
        // Boxed trailers, as only the health check of gRPC has any.
        Ours { bytes: Bytes, trailers: Option<Box<HeaderMap>> },
        Watches { watching: Box<Watching> },
    }
}

impl<B> ServerBody<B> {
    pub(super) fn theirs(body: B, held: Option<InFlight>) -> Self {
        Self {
            kind: Kind::Theirs { body },
            held,
        }
    }

    pub(super) fn ours(said: Said) -> Self {
        let kind = match said.watching {
            Some(watching) => Kind::Watches { watching },
            None => Kind::Ours {
                bytes: said.bytes,
                trailers: said.trailers,
            },
        };
        Self { kind, held: None }
    }
}

/// What the layer itself says.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) bytes: Bytes,
    pub(super) trailers: Option<Box<HeaderMap>>,
    /// In their place, what is said as it changes.
    pub(super) watching: Option<Box<Watching>>,
}

impl<B: Body<Data = Bytes>> Body for ServerBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProj::Theirs { body } => body.poll_frame(cx),
            KindProj::Watches { watching } => watching.poll_frame(cx).map(|frame| frame.map(Ok)),
            KindProj::Ours { bytes, trailers } => Poll::Ready(if !bytes.is_empty() {
                Some(Ok(Frame::data(std::mem::take(bytes))))
            } else {
                trailers
                    .take()
                    .map(|trailers| Ok(Frame::trailers(*trailers)))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Theirs { body } => body.is_end_stream(),
            Kind::Watches { watching } => watching.is_over(),
            Kind::Ours { bytes, trailers } => bytes.is_empty() && trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Theirs { body } => body.size_hint(),
            Kind::Watches { .. } => SizeHint::default(),
            Kind::Ours { bytes, .. } => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}
