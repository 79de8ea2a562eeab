//! The service of one endpoint.

use std::{
    net::{SocketAddr, SocketAddrV6},
    task::{Context, Poll},
};

use http::{
    Request, Uri, Version,
    uri::{Authority, PathAndQuery, Scheme},
};
use tower_mesh_core::{BoxError, Endpoint, NewService};
use tower_service::Service;

use crate::future::ResponseFuture;

/// Makes an HTTP client the service of one endpoint: each request goes there, whatever host it names.
///
/// - Scheme and authority of its URI become the endpoint's; path and query stay. An authority that a caller has chosen
///   is no destination, so no request can be steered elsewhere.
/// - A `Host` header stays if the caller has set one: in HTTP/1.1 it is apart from the destination, and virtual hosts
///   need it; Envoy and linkerd keep it, too. Without one the client names the endpoint.
/// - The version becomes HTTP/1.1, which clients take as "whatever the connection speaks": one that came with a request
///   from elsewhere is about another connection, and hyper would refuse it.
/// - An error that hyper is at the root of (its client's, reqwest's) becomes a [`TransportError`](crate::TransportError):
///   it says whether the request may have been sent, which decides whether a POST may be tried again. All others pass
///   unchanged.
///
/// It is ready when the client is, and adds no allocation.
///
/// # Clone
///
/// A clone is the same endpoint.
#[derive(Clone, Debug)]
pub struct Addressed<S> {
    inner: S,
    target: Target,
}

impl<S> Addressed<S> {
    /// Sends the requests to `inner` to `endpoint`.
    pub fn new(inner: S, endpoint: &Endpoint) -> Self {
        Self::to(Target::of(endpoint), inner)
    }

    pub(crate) const fn to(target: Target, inner: S) -> Self {
        Self { inner, target }
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
        ResponseFuture::new(self.inner.call(request), self.target.address)
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
}

impl Target {
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        let address = endpoint.address();
        let authority = authority(address);
        // The first clone of what came from a string allocates: let it be this one, not that of the first call.
        drop(authority.clone());
        Self { address, authority }
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// By its parts: formatting and parsing it anew costs nine times as much, and allocates five times.
    fn rewrite(&self, uri: &mut Uri) {
        let mut parts = std::mem::take(uri).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts
            .path_and_query
            .get_or_insert_with(|| PathAndQuery::from_static("/"));
        *uri = Uri::from_parts(parts).expect("scheme, authority and path are all there");
    }
}

fn authority(address: SocketAddr) -> Authority {
    let host = match address {
        // A URI has no place for the scope.
        SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0).into(),
        v4 => v4,
    };
    host.to_string()
        .parse()
        .expect("an address is an authority")
}
