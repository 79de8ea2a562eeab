//! The service of one endpoint.

use std::{
    net::{SocketAddr, SocketAddrV6},
    sync::Arc,
    task::{Context, Poll},
};

use http::{
    HeaderMap, Request, Uri, Version,
    uri::{Authority, PathAndQuery, Scheme},
};
use tower_mesh_core::{BoxError, Endpoint, NewService, frame};
use tower_service::Service;

use crate::{
    context::{set_attempt, set_context},
    deadline::set_timeout,
    future::ResponseFuture,
};

/// Makes an HTTP client the service of one endpoint: each request goes there, whatever host it names.
///
/// - Scheme and authority of its URI become the endpoint's; path and query stay. An authority that a caller has chosen
///   is no destination, so no request can be steered elsewhere.
/// - A `Host` header stays if the caller has set one: in HTTP/1.1 it is apart from the destination, and virtual hosts
///   need it; Envoy and linkerd keep it, too. Without one the client names the endpoint.
/// - The version becomes HTTP/1.1, which clients take as "whatever the connection speaks": one that came with a request
///   from elsewhere is about another connection, and hyper would refuse it.
/// - What is left of the time of the attempt, and of the deadline of the call, is [written into the
///   request](crate::set_timeout), so that the other side does not work for nobody: the time that the call has spent already
///   is not in it. So is the [context](crate::context) of the request that is being served, if one is, and from the second
///   attempt on which it is. [`without_context`](Self::without_context) leaves all of that out.
/// - An error that hyper is at the root of (its client's, reqwest's) becomes a [`TransportError`](crate::TransportError):
///   it says whether the request may have been sent, which decides whether a POST may be tried again. All others pass
///   unchanged.
///
/// It is ready when the client is, and adds no allocation but one for the deadline; where nothing is inherited, the context
/// costs a look at a thread-local.
///
/// # Clone
///
/// A clone is the same endpoint.
#[derive(Clone, Debug)]
pub struct Addressed<S> {
    inner: S,
    // Shared: it is cloned for each call.
    target: Arc<Target>,
    silent: bool,
}

impl<S> Addressed<S> {
    /// Sends the requests to `inner` to `endpoint`.
    pub fn new(inner: S, endpoint: &Endpoint) -> Self {
        Self::to(Arc::new(Target::of(endpoint.address())), inner)
    }

    pub(crate) const fn to(target: Arc<Target>, inner: S) -> Self {
        Self {
            inner,
            target,
            silent: false,
        }
    }

    /// The same, which writes nothing of the mesh's own into requests: neither the time that is left, nor trace, priority and
    /// attempt. For endpoints that are somebody else's.
    #[must_use]
    pub const fn without_context(mut self) -> Self {
        self.silent = true;
        self
    }

    /// The service that it wraps.
    pub const fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S, B> Service<Request<B>> for Addressed<S>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        self.target.rewrite(request.uri_mut());
        *request.version_mut() = Version::HTTP_11;
        if !self.silent {
            tell(request.headers_mut());
        }
        ResponseFuture::new(self.inner.call(request), self.target.address)
    }
}

/// What the other side is told of the call.
fn tell(headers: &mut HeaderMap) {
    if let Some(left) = frame::left() {
        set_timeout(headers, left);
    }
    set_context(headers);
    let attempt = frame::attempt();
    if attempt > 1 {
        set_attempt(headers, attempt);
    }
}

/// One client that serves every endpoint: each gets a clone of it, [`Addressed`].
///
/// For a client of your own that connects by the URI, as hyper-util's and reqwest's do.
///
/// # Example
///
/// ```
/// use tower_mesh_core::{Endpoint, NewService};
/// use tower_mesh_http::AddressedShared;
///
/// # let client = ();
/// let clients = AddressedShared::new(client);
/// let orders_1 = clients.new_service(&Endpoint::new(([10, 0, 0, 7], 8080).into()));
/// # let _ = orders_1;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct AddressedShared<S>(S);

impl<S> AddressedShared<S> {
    /// Serves every endpoint with a clone of `client`.
    pub const fn new(client: S) -> Self {
        Self(client)
    }
}

impl<S: Clone> NewService<Endpoint> for AddressedShared<S> {
    type Service = Addressed<S>;

    fn new_service(&self, endpoint: &Endpoint) -> Addressed<S> {
        Addressed::new(self.0.clone(), endpoint)
    }
}

/// Where an endpoint's requests go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    address: SocketAddr,
    authority: Authority,
    scheme: Scheme,
}

impl Target {
    pub(crate) fn of(address: SocketAddr) -> Self {
        Self::named(address, authority(address), Scheme::HTTP)
    }

    /// The same over TLS, by the name that whoever is there has to prove.
    #[cfg(feature = "tls")]
    pub(crate) fn secure(address: SocketAddr, name: &str) -> Self {
        let authority = match address.port() {
            443 => name.to_owned(),
            port => format!("{name}:{port}"),
        };
        let authority = authority.parse().expect("a name of DNS is an authority");
        Self::named(address, authority, Scheme::HTTPS)
    }

    fn named(address: SocketAddr, authority: Authority, scheme: Scheme) -> Self {
        // The first clone of what came from a string allocates: let it be this one, not that of the first call.
        drop(authority.clone());
        Self {
            address,
            authority,
            scheme,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// By its parts: formatting and parsing it anew costs nine times as much, and allocates five times.
    pub(crate) fn rewrite(&self, uri: &mut Uri) {
        let mut parts = std::mem::take(uri).into_parts();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts
            .path_and_query
            .get_or_insert_with(|| PathAndQuery::from_static("/"));
        *uri = Uri::from_parts(parts).expect("scheme, authority and path are all there");
    }
}

pub(crate) fn authority(address: SocketAddr) -> Authority {
    let host = match address {
        // A URI has no place for the scope.
        SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0).into(),
        v4 => v4,
    };
    host.to_string()
        .parse()
        .expect("an address is an authority")
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::{Ready, ready},
        net::Ipv6Addr,
        pin::pin,
        task::Waker,
        time::Duration,
    };

    use http::{
        HeaderValue, Method,
        header::{CONTENT_TYPE, HOST},
    };
    use tower_mesh_core::{Clock, frame::Call};
    use tower_test::mock;

    use super::*;

    type Mock = mock::Mock<Request<()>, ()>;

    /// Answers with the head of the request.
    #[derive(Clone, Debug)]
    struct Echo;

    impl<B> Service<Request<B>> for Echo {
        type Response = http::request::Parts;
        type Error = Infallible;
        type Future = Ready<Result<http::request::Parts, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<B>) -> Self::Future {
            ready(Ok(request.into_parts().0))
        }
    }

    fn endpoint(address: impl Into<SocketAddr>) -> Endpoint {
        Endpoint::new(address.into())
    }

    fn local() -> Endpoint {
        endpoint(([127, 0, 0, 1], 8080))
    }

    fn sent(request: Request<()>, endpoint: &Endpoint) -> http::request::Parts {
        tokio_test::block_on(Addressed::new(Echo, endpoint).call(request)).unwrap()
    }

    // row 11
    #[test]
    fn wherever_a_request_says_it_goes_it_goes_to_the_endpoint_path_and_query_untouched() {
        for (uri, path) in [
            ("/orders/42?x=%2F..%2f&y", "/orders/42?x=%2F..%2f&y"),
            ("http://orders/a/../b", "/a/../b"),
            ("https://user:secret@evil.example:444/a", "/a"),
            ("http://orders?x", "/?x"),
            ("http://orders", "/"),
            ("//evil.example/a", "//evil.example/a"),
            ("*", "*"),
        ] {
            let request = Request::builder().uri(uri).body(()).unwrap();
            let uri = sent(request, &local()).uri;
            assert_eq!(uri.scheme(), Some(&Scheme::HTTP));
            assert_eq!(uri.authority().unwrap(), "127.0.0.1:8080");
            assert_eq!(uri.path_and_query().unwrap().to_string(), path);
        }
    }

    #[test]
    fn a_request_to_an_authority_alone_goes_to_the_endpoint_too() {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri("evil.example:443")
            .body(())
            .unwrap();
        assert_eq!(sent(request, &local()).uri, "http://127.0.0.1:8080/");
    }

    #[test]
    fn headers_stay_as_they_are_and_the_version_of_another_connection_does_not() {
        let request = Request::builder()
            .version(Version::HTTP_2)
            .uri("http://orders/")
            .header(HOST, "orders.example")
            .body(())
            .unwrap();
        let sent = sent(request, &local());
        assert_eq!(sent.headers[HOST], "orders.example");
        assert_eq!(sent.headers.len(), 1);
        assert_eq!(sent.version, Version::HTTP_11);
        let bare = self::sent(Request::new(()), &local());
        assert_eq!(bare.headers, HeaderMap::new());
    }

    // scenario 8
    #[test]
    fn what_is_left_of_the_calls_deadline_is_written_in_the_way_of_the_protocol() {
        let (clock, _) = Clock::manual();
        let calls = |content_type: Option<&'static str>| {
            let poll = |_: &mut Context<'_>| {
                frame::shorten_deadline(frame::now(&clock) + Duration::from_millis(300));
                let mut request = Request::new(());
                if let Some(content_type) = content_type {
                    let value = HeaderValue::from_static(content_type);
                    request.headers_mut().insert(CONTENT_TYPE, value);
                }
                // As the balancer calls it.
                Poll::Ready(frame::hide(|| sent(request, &local())))
            };
            let mut cx = Context::from_waker(Waker::noop());
            match pin!(Call::new()).poll(&clock, &mut cx, poll) {
                Poll::Ready(sent) => sent.headers,
                Poll::Pending => unreachable!(),
            }
        };
        assert_eq!(calls(None)["x-request-timeout-ms"], "300");
        assert_eq!(
            calls(Some("application/json"))["x-request-timeout-ms"],
            "300"
        );
        let grpc = calls(Some("application/grpc"));
        assert_eq!(grpc["grpc-timeout"], "300000u");
        assert!(!grpc.contains_key("x-request-timeout-ms"));
    }

    #[test]
    fn every_address_is_an_authority() {
        let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 7, 3);
        for (endpoint, authority) in [
            (endpoint((Ipv6Addr::LOCALHOST, 8080)), "[::1]:8080"),
            (endpoint(scoped), "[fe80::1]:80"),
            (endpoint(([0, 0, 0, 0], 0)), "0.0.0.0:0"),
        ] {
            let uri = sent(Request::new(()), &endpoint).uri;
            assert_eq!(uri.authority().unwrap(), authority);
        }
    }

    #[test]
    fn a_shared_client_is_addressed_anew_for_each_endpoint() {
        let clients = AddressedShared::new(Echo);
        for port in [1, 2] {
            let endpoint = endpoint(([127, 0, 0, 1], port));
            let mut service = clients.new_service(&endpoint);
            let sent = tokio_test::block_on(service.call(Request::new(()))).unwrap();
            assert_eq!(sent.uri.port_u16(), Some(port));
        }
    }

    #[test]
    fn it_is_ready_when_the_client_is_and_passes_its_errors_unchanged() {
        let (mut service, mut handle) =
            mock::spawn_with(|client: Mock| Addressed::new(client, &local()));
        handle.allow(0);
        tokio_test::assert_pending!(service.poll_ready());
        handle.allow(1);
        tokio_test::assert_ready_ok!(service.poll_ready());
        let mut answer = tokio_test::task::spawn(service.call(Request::new(())));
        let (_, respond) = tokio_test::assert_ready!(handle.poll_request()).unwrap();
        respond.send_error("no");
        let error = tokio_test::assert_ready_err!(answer.poll());
        assert_eq!(error.to_string(), "no");
    }
}
