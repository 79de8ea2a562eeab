//! One client for all services: the authority of a request's URI says which.

pub(crate) mod authority;
mod future;
mod targets;

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use tower_mesh_core::{BoxError, Endpoint, Kind, NewService, Refusal, ServiceName};
use tower_mesh_http::{Addressed, Body, HttpClient, OutsideClient};
use tower_service::Service;

pub use self::future::{ClientBody, ClientFuture};
use self::{
    authority::Hosts,
    targets::{Shared, Target},
};
use crate::{error::Error, mesh::Mesh, service::MeshService, stack::ResponseFuture, tasks::Held};

impl Mesh {
    /// One client for all services: `http://orders/v1/items` goes to the service `orders`. See [`MeshClient`].
    pub fn client(&self) -> MeshClient {
        MeshClient::new(self, |mesh, name| mesh.service(name))
    }

    /// The same, which calls each endpoint by the service that `endpoints` makes for it, as [`MeshLayer::over`](crate::MeshLayer::over) does.
    pub fn client_over<N>(&self, endpoints: N) -> MeshClient<N::Service>
    where
        N: NewService<Endpoint> + Clone + Send + Sync + 'static,
        N::Service: Clone + Send + Sync + 'static,
    {
        MeshClient::new(self, move |mesh, name| {
            Ok(mesh.layer(name)?.over(endpoints.clone()))
        })
    }
}

/// A client of all services of the mesh: a tower service for `http::Request<Body>` that calls the service which the
/// request's URI names.
///
/// ```no_run
/// # async fn example(mesh: tower_mesh::Mesh) -> Result<(), tower_mesh::Error> {
/// let client = mesh.client();
/// let items = client.get("http://orders/v1/items").await?;
/// let user = client.get("http://users/42").await?;
/// # Ok(())
/// # }
/// ```
///
/// # Which service a request names
///
/// | authority | |
/// |---|---|
/// | `orders`, `orders.v2` | the service of that name, exactly |
/// | `orders:80` with http, `orders:443` with https | the same: it says nothing |
/// | any other port | refused: where endpoints listen, the registry says |
/// | `user:secret@orders` | refused, wherever it would go |
/// | `10.0.0.7`, `[::1]`, `2130706433`, `orders.7`, `0x7f.1` | refused: what ends in a number is an address to most that read URIs |
/// | `Orders` | refused: hosts have no case, and two spellings of one service would be two |
/// | `orders.`, `-orders`, `o%72ders`, what is not ASCII | refused: no [`ServiceName`] |
/// | none (`/v1/items`) | refused: a `Host` header is no destination |
/// | `https://orders` of a service without TLS | refused: it would go in plain text |
///
/// So nobody who chooses a URI reaches anything but a service that the registry knows. What is refused is an error of kind
/// `ServiceNotFound`, nothing was sent, and it says what to do. Services with other names are called by [`Mesh::service`].
///
/// # Hosts outside the mesh
///
/// They are refused, unless [`pass_through`](Self::pass_through) names them.
///
/// # Targets
///
/// What is kept of each service that was called is found without a lock and without an allocation. Its client is behind a
/// lock that nobody waits for: who finds it taken clones the client. At most 1,024 are kept; one that nobody calls for ten
/// minutes is let go, and all that was learned of it, unless somebody else holds it. When as many are in use, another is
/// refused as overload: names out of requests cannot fill the memory.
///
/// # Clone
///
/// A clone is the same client.
///
/// # Errors
///
/// Always [`Error`]; a response of any status is no error.
///
/// # Cancel safety
///
/// As of a [`MeshService`]'s calls.
pub struct MeshClient<S = Addressed<HttpClient>> {
    shared: Arc<Shared<S>>,
    outside: Option<Arc<Outside>>,
    sweeping: Arc<Held>,
}

/// What may go out of the mesh, and by what.
struct Outside {
    hosts: Hosts,
    client: OutsideClient,
}

impl<S: Clone + Send + Sync + 'static> MeshClient<S> {
    fn new(
        mesh: &Mesh,
        make: impl Fn(&Mesh, &str) -> Result<MeshService<S>, Error> + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared::new(mesh, make);
        Self {
            sweeping: shared.sweeping(),
            shared,
            outside: None,
        }
    }

    /// Lets requests to these hosts pass: they go where DNS says, by a plain client. They have the time limit of the mesh's
    /// default policy, or what is left of the deadline of the request that is being served; there is no retry, breaker or balancing, and nothing
    /// of the mesh's own in their headers.
    ///
    /// A host is `api.example.com`, `api.example.com:8443`, `*.example.com` for all beneath one, an address, or `*` for every
    /// name with a dot in it, which then is no service. Whoever may choose the URI of a request can reach all of that: what answers there is not for the mesh to know.
    ///
    /// In plain text only, unless `trusting` (of the feature `tls`) says whom to believe.
    #[must_use]
    pub fn pass_through<'a>(mut self, hosts: impl IntoIterator<Item = &'a str>) -> Self {
        let client = match &self.outside {
            Some(outside) => outside.client.clone(),
            None => self.shared.mesh.core.connect.outside(),
        };
        let hosts = Hosts::new(hosts);
        self.outside = Some(Arc::new(Outside { hosts, client }));
        self
    }

    /// Has hosts [outside](Self::pass_through) called over https, too, which prove their names to `tls`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn trusting(mut self, tls: &tower_mesh_http::Tls) -> Self {
        let client = self.shared.mesh.core.connect.outside_with(tls);
        let hosts = match &self.outside {
            Some(outside) => outside.hosts.clone(),
            None => Hosts::default(),
        };
        self.outside = Some(Arc::new(Outside { hosts, client }));
        self
    }
}

impl<S, B> MeshClient<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    /// Asks for what `uri` names.
    ///
    /// # Errors
    ///
    /// [`Error`], also if it is no URI.
    pub async fn get(&self, uri: &str) -> Result<Response<ClientBody<B>>, Error> {
        let uri: Uri = uri
            .parse()
            .map_err(|error: http::uri::InvalidUri| Error::new(self.name(), error.into()))?;
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = uri;
        self.send(request).await
    }

    /// Sends `request`.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn send(&self, request: Request<Body>) -> Result<Response<ClientBody<B>>, Error> {
        self.begin(request).await
    }

    fn begin(&self, request: Request<Body>) -> ClientFuture<ResponseFuture<S>> {
        match &self.outside {
            // First: clones that let nobody through may have called a service of that name.
            Some(outside) if outside.hosts.have(request.uri()) => self.pass(outside, request),
            _ => {
                let seen = self.shared.seen();
                if let Some(target) = targets::find(&seen, request.uri()) {
                    return called(target, request);
                }
                // What is let go of to make room for another service must not be held here.
                drop(seen);
                self.unseen(request)
            }
        }
    }

    #[cold]
    fn pass(&self, outside: &Outside, request: Request<Body>) -> ClientFuture<ResponseFuture<S>> {
        let core = &self.shared.mesh.core;
        let limit = core.settings.load().defaults().timeout;
        ClientFuture::outside(outside.client.send(request), core, limit)
    }

    /// Calls a service that was not called before, if it is one.
    #[cold]
    fn unseen(&self, request: Request<Body>) -> ClientFuture<ResponseFuture<S>> {
        match self.target(request.uri()) {
            Ok(target) => called(&target, request),
            Err(error) => ClientFuture::refused(error),
        }
    }

    fn target(&self, uri: &Uri) -> Result<Arc<Target<S>>, Error> {
        let name = authority::service(uri).map_err(|why| {
            let refusal = Refusal::local(Kind::ServiceNotFound).with_context(why);
            Error::refused(self.name(), refusal)
        })?;
        self.shared.target(name.as_str(), uri)
    }
}

impl<S> MeshClient<S> {
    /// Who calls: the name for errors that are about no service.
    fn name(&self) -> &ServiceName {
        &self.shared.mesh.core.name
    }
}

/// If the request's body, which is asked how long it is, comes back here, it finds the lock taken and gets a clone; so does
/// everybody after it has panicked there.
fn called<S, B>(target: &Target<S>, request: Request<Body>) -> ClientFuture<ResponseFuture<S>>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    let (mut spare, mut clone);
    let service = match target.spare.try_lock() {
        Ok(lock) => {
            spare = lock;
            &mut *spare
        }
        Err(_) => {
            clone = target.service.clone();
            &mut clone
        }
    };
    // A client of a service is always ready, unless the mesh is shutting down; so nobody need be woken.
    match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Err(error)) => ClientFuture::refused(error),
        _ => ClientFuture::service(service.call(request)),
    }
}

impl<S, B> Service<Request<Body>> for MeshClient<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Response = Response<ClientBody<B>>;
    type Error = Error;
    type Future = ClientFuture<ResponseFuture<S>>;

    /// Ready at once, unless the mesh is shutting down.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.shared.mesh.core.stage.is_open() {
            return Poll::Ready(Ok(()));
        }
        let refusal = Refusal::local(Kind::ShuttingDown);
        Poll::Ready(Err(Error::refused(self.name(), refusal)))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.begin(request)
    }
}

impl<S> Clone for MeshClient<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            outside: self.outside.clone(),
            sweeping: Arc::clone(&self.sweeping),
        }
    }
}

impl<S> fmt::Debug for MeshClient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshClient")
            .field("name", self.name())
            .finish_non_exhaustive()
    }
}
