//! The body of a request.

use std::{
    any::Any,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tower_mesh_core::BoxError;

use self::replayed::{Keeper, Read, Reader};

mod replayed;
mod tape;

/// The body of a request: nothing, bytes, or a stream.
///
/// Only a stream is boxed. Nothing and bytes are held as they are, so they cost no allocation. A retry can send all of
/// them again: a stream as far as it has been read, if that was little, and then the rest of it; see
/// [`HttpReplay`](crate::HttpReplay).
///
/// # Example
///
/// ```
/// use http_body::Body as _;
/// use tower_mesh_http::Body;
///
/// assert!(Body::empty().is_end_stream());
/// assert_eq!(Body::from("hello").size_hint().exact(), Some(5));
/// ```
#[derive(Default)]
pub struct Body(Kind);

/// As large as `Bytes`, so that a request fills four cache lines: moving one a byte larger takes twice the instructions.
enum Kind {
    /// None of them if there is no body, or when it has been read.
    Known(Bytes),
    Stream(Streamed),
}

enum Streamed {
    Boxed(Stream),
    /// A stream that other attempts may read as well.
    Replayed(Reader),
}

impl Default for Kind {
    fn default() -> Self {
        Self::Known(Bytes::new())
    }
}

type Stream = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>;

impl Body {
    /// No body.
    pub const fn empty() -> Self {
        Self(Kind::Known(Bytes::new()))
    }

    /// A body that streams: it is boxed, and read no sooner than it is sent.
    ///
    /// One that says at once that it has ended becomes [`empty`](Self::empty), and a `Body` stays what it is.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        // The only way to ask a type parameter what it is: by way of an `Option` that can be emptied.
        let mut body = Some(body);
        if let Some(this) = (&mut body as &mut dyn Any).downcast_mut::<Option<Self>>() {
            return this.take().unwrap_or_default();
        }
        match body {
            Some(body) => Self::streamed(Streamed::Boxed(Box::pin(Erased { body }))),
            None => Self::empty(),
        }
    }

    const fn streamed(stream: Streamed) -> Self {
        Self(Kind::Stream(stream))
    }

    /// Keeps what makes the same body again, if it has not been read: a share of up to `limit` bytes, or of a stream,
    /// which from now on records what is read of it as long as that is no more than `limit`.
    pub(crate) fn keep(&mut self, limit: usize) -> Option<KeptBody> {
        match &mut self.0 {
            Kind::Known(bytes) if bytes.len() <= limit => Some(KeptBody::Known(bytes.clone())),
            Kind::Known(_) => None,
            Kind::Stream(Streamed::Replayed(reader)) => reader.keep().map(KeptBody::Stream),
            Kind::Stream(Streamed::Boxed(_)) => {
                let Kind::Stream(Streamed::Boxed(stream)) = std::mem::take(&mut self.0) else {
                    return None;
                };
                let (reader, keeper) = replayed::share(stream, limit);
                *self = Self::streamed(Streamed::Replayed(reader));
                Some(KeptBody::Stream(keeper))
            }
        }
    }
}

/// What makes a body again.
pub(crate) enum KeptBody {
    Known(Bytes),
    Stream(Keeper),
}

impl KeptBody {
    /// The body of another attempt, from which it takes the stream, if that still can be had from its beginning.
    pub(crate) fn again(&self) -> Option<Body> {
        match self {
            Self::Known(bytes) => Some(bytes.clone().into()),
            Self::Stream(keeper) => Some(Body::streamed(Streamed::Replayed(keeper.again()?))),
        }
    }
}

impl fmt::Debug for KeptBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Stream(_) => f.write_str("stream"),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Known(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Known(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Stream(Streamed::Boxed(stream)) => stream.as_mut().poll_frame(cx),
            Kind::Stream(Streamed::Replayed(reader)) => match reader.poll_frame(cx) {
                Read::Frame(polled) => polled,
                Read::Alone(mut stream) => {
                    let polled = stream.as_mut().poll_frame(cx);
                    *self = Self::streamed(Streamed::Boxed(stream));
                    polled
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Known(bytes) => bytes.is_empty(),
            Kind::Stream(Streamed::Boxed(stream)) => stream.is_end_stream(),
            Kind::Stream(Streamed::Replayed(reader)) => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Known(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(Streamed::Boxed(stream)) => stream.size_hint(),
            Kind::Stream(Streamed::Replayed(reader)) => reader.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    /// How long it is, not what it says: bodies hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Known(bytes) if bytes.is_empty() => f.write_str("Body(empty)"),
            Kind::Known(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Kind::Stream(_) => f.write_str("Body(stream)"),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Known(bytes))
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

pin_project_lite::pin_project! {
    /// A body of any type with its error made one type.
    struct Erased<B> {
        #[pin]
        body: B,
    }
}

impl<B> http_body::Body for Erased<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.project()
            .body
            .poll_frame(cx)
            .map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::{BodyExt, Full};
    use tokio_test::block_on;

    use super::*;
    use crate::script::{Script, Step};

    fn stream(chunks: &[&'static str]) -> Body {
        Body::new(Script::new(chunks.iter().map(|chunk| Step::Data(chunk))))
    }

    #[test]
    fn bytes_come_in_one_frame_and_the_hints_are_exact_before_and_after() {
        let mut body = Body::from("hello");
        assert_eq!(body.size_hint().exact(), Some(5));
        assert!(!body.is_end_stream());
        let frame = block_on(body.frame()).unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "hello");
        assert_eq!(body.size_hint().exact(), Some(0));
        assert!(body.is_end_stream());
        assert!(block_on(body.frame()).is_none());
    }

    #[test]
    fn whatever_is_empty_has_ended_before_it_is_read() {
        for body in [
            Body::default(),
            Body::from(()),
            Body::from(""),
            Body::from(String::new()),
            Body::from(Vec::new()),
            Body::from(Bytes::new()),
            Body::new(Full::new(Bytes::new())),
            Body::new(Body::empty()),
        ] {
            assert!(body.is_end_stream());
            assert!(matches!(body.0, Kind::Known(_)));
        }
    }

    #[test]
    fn a_body_in_a_body_stays_known() {
        assert!(matches!(Body::new(Body::from("hello")).0, Kind::Known(_)));
    }

    #[test]
    fn a_stream_passes_through_whole() {
        let body = stream(&["a", "b", "c"]);
        assert_eq!(body.size_hint().exact(), None);
        assert_eq!(block_on(body.collect()).unwrap().to_bytes(), "abc");
    }

    #[test]
    fn what_is_in_it_does_not_show_in_debug() {
        assert_eq!(format!("{:?}", Body::from("secret")), "Body(6 bytes)");
        assert_eq!(format!("{:?}", stream(&["secret"])), "Body(stream)");
    }

    #[test]
    fn a_request_fills_four_cache_lines() {
        assert_eq!(size_of::<Body>(), size_of::<Bytes>());
        assert_eq!(size_of::<http::Request<Body>>(), 256);
    }

    #[test]
    fn it_is_send_and_unpin() {
        fn check<T: Send + Unpin + 'static>() {}
        check::<Body>();
    }
}
