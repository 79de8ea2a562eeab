//! Keeping a request while an attempt runs, to send it again.

use std::fmt;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use tower_mesh_core::Replay;

use crate::body::Body;

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

/// Sends again what is empty or known bytes, up to a limit; what streams is sent once.
///
/// | request | may be sent again |
/// |---|---|
/// | GET, HEAD, OPTIONS, TRACE, PUT, DELETE | yes |
/// | with a header `idempotency-key` | yes |
/// | with [`Idempotent`] in its extensions | as that says |
/// | any other | if it surely was not sent |
/// | its body is a stream, or longer than the limit | never |
///
/// The limit is 64 KiB unless said, as linkerd's.
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
#[derive(Clone, Copy, Debug)]
pub struct HttpReplay {
    limit: usize,
}

/// As linkerd's.
const LIMIT: usize = 64 * 1024;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

impl HttpReplay {
    /// Keeps bodies of up to 64 KiB.
    pub const fn new() -> Self {
        Self { limit: LIMIT }
    }

    /// Keeps bodies of up to `bytes`.
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
        if request.body().known()?.len() > self.limit {
            return None;
        }
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
            body: request.body().share()?,
        })
    }

    fn again(&self, kept: &Kept) -> Option<Request<Body>> {
        let mut request = Request::new(kept.body.share()?);
        *request.method_mut() = kept.method.clone();
        *request.uri_mut() = kept.uri.clone();
        *request.version_mut() = kept.version;
        *request.headers_mut() = kept.header_map();
        *request.extensions_mut() = kept.extensions.clone();
        Some(request)
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
    body: Body,
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
    fn a_stream_is_sent_once_and_not_refused() {
        let script = Script::new([Step::Data("a"), Step::Data("b")]);
        let mut streaming = request(Method::PUT, Body::new(script));
        assert!(HttpReplay::new().keep(&mut streaming).is_none());
        assert_eq!(bytes(streaming), "ab");
    }

    // row 15
    #[test]
    fn a_stream_is_not_read_to_find_out_how_long_it_is() {
        let script = Script::new([Step::Panic]);
        let mut streaming = request(Method::PUT, Body::new(script));
        assert!(HttpReplay::new().keep(&mut streaming).is_none());
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
