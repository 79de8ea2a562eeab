//! Keeping a request while an attempt runs, to send it again.

use std::fmt;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use tower_mesh_core::Replay;

use crate::body::{Body, KeptBody};

/// Says of one request whether sending it twice does no more than sending it once, whatever its method and headers
/// say: put it into the request's extensions.
///
/// # Example
///
/// ```
/// use tower_mesh_core::Replay;
/// use tower_mesh_http::{Body, HttpReplay, Idempotent};
///
/// let mut request = http::Request::post("/search").body(Body::from("{}")).unwrap();
/// assert!(!HttpReplay::new().is_idempotent(&request));
/// request.extensions_mut().insert(Idempotent::Yes);
/// assert!(HttpReplay::new().is_idempotent(&request));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotent {
    /// It may be sent again although it may have arrived.
    Yes,
    /// It may be sent again only if it surely did not arrive.
    No,
}

/// Sends again what is empty, known bytes up to a limit, or a stream of which no more than that has been read.
///
/// | request | may be sent again |
/// |---|---|
/// | GET, HEAD, OPTIONS, TRACE, PUT, DELETE | yes |
/// | with a header `idempotency-key` | yes |
/// | with [`Idempotent`] in its extensions | as that says |
/// | any other | if it surely was not sent |
/// | its body is known bytes, more than the limit | never |
/// | its body is a stream of which more than the limit has been read, or that has failed | not any more |
///
/// The limit is 64 KiB unless said, as linkerd's. What cannot be sent again is sent once, and not refused.
///
/// # Streams
///
/// A stream is sent as it comes, and read no sooner than the connection takes it. What has been read is recorded
/// meanwhile, trailers included; the next attempt sends that, and then goes on with the rest. So nobody waits for a body
/// to be complete, and a body of any length can be sent again as long as not much of it is gone: an upload to an endpoint
/// where nobody listens, or that refuses it at once.
///
/// With the first byte beyond the limit, which is of data and trailers together, the record is dropped, and so it is when the response is there (when [`Kept`] is
/// dropped, to be exact); from then on the stream is passed on as if it had never been kept. A stream that says it is
/// longer than the limit is not recorded at all: it can be sent again until its first byte is read.
///
/// One attempt at a time has the stream, so a request with one is never hedged ([`can_overlap`](Replay::can_overlap)). When another is made ready the one before, should its connection still read,
/// stands still, and ends with an error as soon as the other reads; if the other is given up unread, it goes on. An error
/// or a panic of the stream ends it for every attempt.
///
/// # What it costs
///
/// What a retry may need is kept before the first attempt, also of a POST: whoever refuses a connection has not seen it,
/// and the client drops the request when it fails. Kept are the headers as a list (one allocation if there are any,
/// where a clone of the map takes two), a share of the URI, of each header value and of the body, and a clone of the
/// extensions (nothing if there are none). The map is made anew only for a retry.
///
/// A share of a value that is a constant or was shared before is free, the first of any other allocates once. So a GET
/// without headers costs nothing that hyper would not pay anyway, a POST of constants 1 allocation, a POST of a fresh
/// buffer with two fresh header values 4.
///
/// A stream costs 1 allocation when it is kept, and its record, which holds copies, never more than the limit: a share of
/// a frame would hold the buffer the frame was cut from, however large. (One frame can come on top, if it is being
/// read in the very moment in which another attempt is made ready.) Each frame that is recorded takes an uncontended lock
/// twice, and once more when the connection asks whether it was the last. A stream of a request that is not idempotent is recorded too: an HTTP/2 server may refuse a request, without
/// having looked at it, when some of the body is already gone.
#[derive(Clone, Copy, Debug)]
pub struct HttpReplay {
    limit: usize,
}

/// As linkerd's.
const LIMIT: usize = 64 * 1024;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

impl HttpReplay {
    /// Keeps bodies of up to 64 KiB, and that much of streams.
    pub const fn new() -> Self {
        Self { limit: LIMIT }
    }

    /// Keeps bodies of up to `bytes`, and that much of streams.
    #[must_use]
    pub const fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }
}

impl Default for HttpReplay {
    fn default() -> Self {
        Self::new()
    }
}

impl Replay<Request<Body>> for HttpReplay {
    type Kept = Kept;

    fn is_idempotent(&self, request: &Request<Body>) -> bool {
        match request.extensions().get() {
            Some(Idempotent::Yes) => true,
            Some(Idempotent::No) => false,
            None => {
                request.method().is_idempotent() || request.headers().contains_key(IDEMPOTENCY_KEY)
            }
        }
    }

    fn keep(&self, request: &mut Request<Body>) -> Option<Kept> {
        let body = request.body_mut().keep(self.limit)?;
        Some(Kept {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request
                .headers()
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            extensions: request.extensions().clone(),
            body,
        })
    }

    fn again(&self, kept: &Kept) -> Option<Request<Body>> {
        let mut request = Request::new(kept.body.again()?);
        *request.method_mut() = kept.method.clone();
        *request.uri_mut() = kept.uri.clone();
        *request.version_mut() = kept.version;
        *request.headers_mut() = kept.header_map();
        *request.extensions_mut() = kept.extensions.clone();
        Some(request)
    }

    fn can_overlap(&self, kept: &Kept) -> bool {
        match kept.body {
            KeptBody::Known(_) => true,
            // The attempt that has the stream would stand still, and fail as soon as the other reads.
            KeptBody::Stream(_) => false,
        }
    }
}

/// What [`HttpReplay`] keeps of a request.
pub struct Kept {
    method: Method,
    uri: Uri,
    version: Version,
    /// A list, since a map takes two allocations, and mostly nobody looks at it again.
    headers: Vec<(HeaderName, HeaderValue)>,
    extensions: Extensions,
    body: KeptBody,
}

impl Kept {
    fn header_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            map.append(name, value.clone());
        }
        map
    }
}

impl fmt::Debug for Kept {
    /// Without headers and query, which hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("method", &self.method)
            .field("path", &self.uri.path())
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::BodyExt;
    use proptest::prelude::*;
    use tokio_test::block_on;

    use super::*;
    use crate::script::{Script, Step};

    fn request(method: Method, body: Body) -> Request<Body> {
        Request::builder()
            .method(method)
            .uri("/orders?id=42")
            .body(body)
            .unwrap()
    }

    fn bytes(request: Request<Body>) -> Bytes {
        block_on(request.into_body().collect()).unwrap().to_bytes()
    }

    // scenario 10, row 16
    #[test]
    fn a_body_of_65536_bytes_is_sent_again_byte_for_byte_and_one_byte_more_is_sent_once_and_whole()
    {
        let replay = HttpReplay::new();
        let content: Vec<u8> = (0..65_537u32).map(|i| (i % 251) as u8).collect();

        let mut fits = request(Method::PUT, content[..65_536].to_vec().into());
        let kept = replay.keep(&mut fits).unwrap();
        assert_eq!(bytes(fits), content[..65_536]);
        for _ in 0..2 {
            assert_eq!(bytes(replay.again(&kept).unwrap()), content[..65_536]);
        }

        let mut too_long = request(Method::PUT, content.clone().into());
        assert!(replay.keep(&mut too_long).is_none());
        assert_eq!(bytes(too_long), content);
    }

    // flaw Q1: reqwest-retry answers a body that cannot be cloned with an error instead of sending it.
    #[test]
    fn a_stream_beyond_the_limit_is_sent_once_and_whole_and_not_refused() {
        let replay = HttpReplay::new().limit(2);
        let script = Script::new([Step::Data("ab"), Step::Data("c"), Step::Data("d")]);
        let mut streaming = request(Method::PUT, Body::new(script));
        let kept = replay.keep(&mut streaming).unwrap();
        assert_eq!(bytes(streaming), "abcd");
        assert!(replay.again(&kept).is_none());
    }

    #[test]
    fn a_stream_within_the_limit_is_sent_again_byte_for_byte() {
        let script = Script::new([Step::Data("ab"), Step::Data("c")]);
        let mut streaming = request(Method::PUT, Body::new(script));
        let kept = HttpReplay::new().keep(&mut streaming).unwrap();
        assert_eq!(bytes(streaming), "abc");
        for _ in 0..2 {
            assert_eq!(bytes(HttpReplay::new().again(&kept).unwrap()), "abc");
        }
        assert!(!format!("{kept:?}").contains("abc"));
    }

    #[test]
    fn what_is_empty_or_known_may_be_sent_while_it_is_being_sent_and_a_stream_may_not() {
        let replay = HttpReplay::new();
        let overlaps = |body: Body| {
            let kept = replay.keep(&mut request(Method::PUT, body));
            replay.can_overlap(&kept.unwrap())
        };
        assert!(overlaps(Body::empty()));
        assert!(overlaps("known".into()));
        let stream = |steps: Vec<Step>| Body::new(Script::new(steps));
        assert!(!overlaps(stream(vec![Step::Data("ab")])));
        // Not even beneath a retry, which has kept the stream already.
        let mut kept_before = request(Method::PUT, stream(vec![Step::Data("ab")]));
        let above = replay.keep(&mut kept_before).unwrap();
        assert!(!replay.can_overlap(&replay.keep(&mut kept_before).unwrap()));
        assert_eq!(bytes(kept_before), "ab");
        assert_eq!(bytes(replay.again(&above).unwrap()), "ab");
    }

    // row 15
    #[test]
    fn a_stream_is_not_read_to_find_out_how_long_it_is() {
        let script = Script::new([Step::Panic]);
        let mut streaming = request(Method::PUT, Body::new(script));
        let kept = HttpReplay::new().keep(&mut streaming).unwrap();
        drop(streaming);
        assert!(HttpReplay::new().again(&kept).is_some());
    }

    #[test]
    fn everything_of_the_request_comes_again() {
        let mut first = request(Method::PATCH, "body".into());
        *first.version_mut() = Version::HTTP_2;
        first.extensions_mut().insert(7u8);
        let headers = first.headers_mut();
        headers.append("x-twice", HeaderValue::from_static("1"));
        headers.append("accept", HeaderValue::from_static("*/*"));
        headers.append("x-twice", HeaderValue::from_static("2"));
        let mut secret = HeaderValue::from_static("secret");
        secret.set_sensitive(true);
        headers.append("authorization", secret);

        let kept = HttpReplay::new().keep(&mut first).unwrap();
        let again = HttpReplay::new().again(&kept).unwrap();
        assert_eq!(again.method(), first.method());
        assert_eq!(again.uri(), first.uri());
        assert_eq!(again.version(), first.version());
        assert_eq!(again.headers(), first.headers());
        assert!(again.headers()["authorization"].is_sensitive());
        assert_eq!(again.extensions().get(), Some(&7u8));
        assert_eq!(bytes(again), "body");
        assert!(!format!("{kept:?}").contains("secret"));
        assert!(!format!("{kept:?}").contains("42"), "the query may be one");
    }

    // row 32, flaw Q1: a POST that may have arrived is not sent again.
    #[test]
    fn a_method_is_idempotent_as_rfc_9110_says_and_a_mark_overrides_it() {
        let replay = HttpReplay::new();
        for (method, idempotent) in [
            (Method::GET, true),
            (Method::HEAD, true),
            (Method::OPTIONS, true),
            (Method::TRACE, true),
            (Method::PUT, true),
            (Method::DELETE, true),
            (Method::POST, false),
            (Method::PATCH, false),
            (Method::CONNECT, false),
        ] {
            let mut request = request(method, Body::empty());
            assert_eq!(replay.is_idempotent(&request), idempotent, "{request:?}");

            let headers = request.headers_mut();
            headers.insert("Idempotency-Key", HeaderValue::from_static("\"8e03\""));
            assert!(replay.is_idempotent(&request), "{request:?}");

            request.extensions_mut().insert(Idempotent::No);
            assert!(!replay.is_idempotent(&request), "{request:?}");
            request.extensions_mut().insert(Idempotent::Yes);
            assert!(replay.is_idempotent(&request), "{request:?}");
        }
    }

    #[test]
    fn what_is_not_idempotent_is_kept_too_because_it_may_surely_not_have_been_sent() {
        let mut post = request(Method::POST, "body".into());
        assert!(HttpReplay::new().keep(&mut post).is_some());
    }

    #[test]
    fn a_limit_of_zero_keeps_only_what_has_no_body() {
        let replay = HttpReplay::new().limit(0);
        assert!(
            replay
                .keep(&mut request(Method::GET, Body::empty()))
                .is_some()
        );
        assert!(replay.keep(&mut request(Method::PUT, "a".into())).is_none());
    }

    proptest! {
        #[test]
        fn headers_survive_in_any_number_and_order(
            headers in prop::collection::vec(("[a-d]{1,2}", "[ -~]{0,9}"), 0..20),
        ) {
            let mut first = request(Method::GET, Body::empty());
            for (name, value) in &headers {
                let name: HeaderName = name.parse().unwrap();
                first.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
            }
            let kept = HttpReplay::new().keep(&mut first).unwrap();
            let again = HttpReplay::new().again(&kept).unwrap();
            prop_assert_eq!(again.headers(), first.headers());
        }
    }
}
