//! Serving until the process is told to end, and ending without a failed call.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, IntoFuture},
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tower_mesh_core::{BoxError, BoxFuture, Instance, RegisterError};
use tower_service::Service;

use super::{connections::Connections, error::ServeError, stop::Stop};
use crate::{mesh::Mesh, shutdown};

/// What Kubernetes, Consul and load balancers need to hear of it; the usual `preStop` sleep.
const PROPAGATION: Duration = Duration::from_secs(5);
/// With the propagation within the 30 s that Kubernetes gives a process.
const DRAIN: Duration = Duration::from_secs(20);
/// A registry that does not answer must not keep the process.
const DEREGISTER: Duration = Duration::from_secs(5);

/// A server that ends without a failed call; made by [`Mesh::serve`](crate::Mesh::serve). Nothing happens before it is
/// awaited.
///
/// When the process is told to end (SIGTERM or ctrl-c, heard from the moment it is awaited on, or [`until`](Self::until)):
///
/// 1. `/health/ready` of the mesh's [layer](crate::Mesh::server_layer) says 503; `/health/live` stays 200.
/// 2. Every instance that this mesh has registered is taken out of the registry.
/// 3. It goes on serving, new connections too, for the [propagation](Self::propagation): callers have to hear of it first.
///    Answers over HTTP/1.1 say `connection: close` from now on.
/// 4. It accepts no more, says GOAWAY over HTTP/2 (first that it will go, and a round trip later at which stream) and closes
///    idle connections.
/// 5. It waits until the requests in flight have been answered, no longer than the [drain limit](Self::drain_limit); what
///    runs then is cut off.
/// 6. The mesh [ends](crate::Mesh::shutdown): only now, because those requests needed it. With several servers, that is with
///    the last of them.
///
/// A second signal skips to the end. It completes when all of that is done.
///
/// | setting | unless said | why |
/// |---|---|---|
/// | [`register`](Self::register) | nothing | what others should call this process, only it knows |
/// | [`propagation`](Self::propagation) | 5 s | what watches of registries and load balancers take |
/// | [`drain_limit`](Self::drain_limit) | 20 s | with the propagation within Kubernetes' 30 s |
///
/// # Errors
///
/// [`ServeError`] if an instance could not be registered, or if something had to be cut off.
///
/// # Cancel safety
///
/// Dropped, it closes its connections at once and leaves the mesh running.
#[must_use = "it serves when it is awaited"]
pub struct Serve<S> {
    mesh: Mesh,
    listener: TcpListener,
    service: S,
    instances: Vec<Instance>,
    propagation: Duration,
    drain: Duration,
    stop: Stop,
}

impl<S> Serve<S> {
    pub(super) fn new(mesh: Mesh, listener: TcpListener, service: S) -> Self {
        Self {
            mesh,
            listener,
            service,
            instances: Vec::new(),
            propagation: PROPAGATION,
            drain: DRAIN,
            stop: Stop::new(),
        }
    }

    /// Announces `instance` once it can be called. Once for each name that this process goes by.
    pub fn register(mut self, instance: Instance) -> Self {
        self.instances.push(instance);
        self
    }

    /// Goes on serving for so long after the registry was told.
    pub fn propagation(mut self, time: Duration) -> Self {
        self.propagation = time;
        self
    }

    /// Gives requests in flight so long, once it accepts no more.
    pub fn drain_limit(mut self, limit: Duration) -> Self {
        self.drain = limit;
        self
    }

    /// Ends when `stop` completes, and not by signals. Said again, what is said then ends it at once, as a second signal
    /// would.
    pub fn until(mut self, stop: impl Future<Output = ()> + Send + 'static) -> Self {
        self.stop.given(Box::pin(stop));
        self
    }
}

impl<S, B> IntoFuture for Serve<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<(), ServeError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<S, B> Serve<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    async fn run(mut self) -> Result<(), ServeError> {
        // First of all: a signal that nobody hears ends the process.
        self.stop.listen().map_err(ServeError::signals)?;
        let core = Arc::clone(&self.mesh.core);
        let serving = &core.serving;
        serving.servers.fetch_add(1, Ordering::Relaxed);
        let mut connections = Connections::new(self.listener, self.service, &core);
        let (cut, tracker) = (connections.cut.clone(), connections.tracker.clone());
        let _cut = cut.clone().drop_guard();
        let registered = {
            let mut accepting = pin!(connections.accept());
            // Callers may come as soon as they hear of it.
            let registered = tokio::select! {
                biased;
                registered = register(&self.mesh, &mut self.instances) => registered,
                never = &mut accepting => match never {},
                () = self.stop.next() => {
                    serving.drain();
                    Ok(())
                }
            };
            if registered.is_ok() && !serving.is_draining() {
                beside(accepting, self.stop.next()).await;
            }
            registered
        };
        let propagation = match registered {
            Ok(()) => self.propagation,
            // Nobody has heard of it.
            Err(_) => Duration::ZERO,
        };
        let at_once = tokio::select! {
            biased;
            () = end(&self.mesh, connections, propagation, self.drain) => false,
            () = self.stop.next() => true,
        };
        let cut_off = tracker.len();
        cut.cancel();
        let last = serving.servers.fetch_sub(1, Ordering::AcqRel) == 1;
        let limit = if at_once { Duration::ZERO } else { self.drain };
        let ended = match last {
            true => self.mesh.shutdown(limit).await,
            false => Ok(()),
        };
        registered.map_err(ServeError::register)?;
        ServeError::check(cut_off, ended)
    }
}

async fn register(mesh: &Mesh, instances: &mut Vec<Instance>) -> Result<(), RegisterError> {
    for instance in instances.drain(..) {
        mesh.register(instance).await?;
    }
    Ok(())
}

/// The steps from "not ready" to "nothing in flight", or to the end of the time for it.
async fn end<S, B>(
    mesh: &Mesh,
    mut connections: Connections<S>,
    propagation: Duration,
    limit: Duration,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let (core, clock) = (&mesh.core, &mesh.core.clock);
    core.serving.drain();
    tracing::info!(?propagation, "no longer ready");
    let told = async {
        let mut started = core.started.lock().await;
        shutdown::deregister(&mut started, clock, clock.now() + DEREGISTER).await;
        drop(started);
        clock.sleep(propagation).await;
    };
    beside(pin!(connections.accept()), told).await;
    connections.accept_waiting().await;
    tracing::info!(connections = connections.open(), ?limit, "draining");
    clock.within(limit, connections.drain()).await;
}

/// What `future` gives, while connections are accepted.
async fn beside<T>(
    mut accepting: Pin<&mut impl Future<Output = Infallible>>,
    future: impl Future<Output = T>,
) -> T {
    tokio::select! {
        biased;
        out = future => out,
        never = &mut accepting => match never {},
    }
}

impl<S> fmt::Debug for Serve<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("listener", &self.listener)
            .field("instances", &self.instances)
            .field("propagation", &self.propagation)
            .field("drain_limit", &self.drain)
            .finish_non_exhaustive()
    }
}
