//! Serving until the process is told to end, and ending without a failed call.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, IntoFuture, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use pin_project_lite::pin_project;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_mesh_core::{BoxError, BoxFuture, Clock, Instance, RegisterError};
use tower_service::Service;

use super::{Serving, stop::Stop};
use crate::{
    mesh::{Core, Mesh},
    shutdown::{self, ShutdownError},
    tasks::Tasks,
};

/// What Kubernetes, Consul and load balancers need to hear of it; the usual `preStop` sleep.
const PROPAGATION: Duration = Duration::from_secs(5);
/// With the propagation within the 30 s that Kubernetes gives a process.
const DRAIN: Duration = Duration::from_secs(20);
/// A registry that does not answer must not keep the process.
const DEREGISTER: Duration = Duration::from_secs(5);
/// When there are no file descriptors, they do not come back at once; axum's pause.
const PAUSE: Duration = Duration::from_secs(1);

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
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<(), ServeError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<S, B> Serve<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
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
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
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
    let Connections {
        listener,
        graceful,
        tracker,
        ..
    } = connections;
    drop(listener);
    tracing::info!(connections = tracker.len(), ?limit, "draining");
    tracker.close();
    clock
        .within(limit, async {
            graceful.shutdown().await;
            tracker.wait().await;
        })
        .await;
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

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// The connections of a server.
struct Connections<S> {
    listener: TcpListener,
    service: Closing<S>,
    builder: auto::Builder<Executor>,
    graceful: GracefulShutdown,
    tracker: TaskTracker,
    tasks: Tasks,
    clock: Clock,
    /// Ends all of them at once.
    cut: CancellationToken,
}

impl<S> Connections<S> {
    fn new(listener: TcpListener, service: S, core: &Core) -> Self {
        let cut = core.tasks.child_token();
        let mut builder = auto::Builder::new(Executor {
            tasks: core.tasks.clone(),
            cut: cut.clone(),
        });
        // With a timer hyper gives a head 30 s to arrive: who sends none must not hold a connection for ever.
        builder.http1().timer(TokioTimer::new());
        builder.http2().timer(TokioTimer::new());
        Self {
            listener,
            service: Closing {
                inner: service,
                serving: Arc::clone(&core.serving),
            },
            builder,
            graceful: GracefulShutdown::new(),
            tracker: TaskTracker::new(),
            tasks: core.tasks.clone(),
            clock: core.clock.clone(),
            cut,
        }
    }
}

impl<S, B> Connections<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    async fn accept(&mut self) -> Infallible {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => self.serve(stream),
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    self.clock.sleep(PAUSE).await;
                }
            }
        }
    }

    /// Whoever has connected already is not turned away.
    async fn accept_waiting(&mut self) {
        poll_fn(|cx| {
            while let Poll::Ready(Ok((stream, _))) = self.listener.poll_accept(cx) {
                self.serve(stream);
            }
            Poll::Ready(())
        })
        .await;
    }

    fn serve(&mut self, stream: TcpStream) {
        // Small answers go out at once; a socket that cannot do that is about to say why.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(self.service.clone());
        let connection = self
            .builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service);
        let connection = self.graceful.watch(connection.into_owned());
        let connection = self.tracker.track_future(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection broke");
            }
        });
        self.tasks.spawn_until(self.cut.clone(), connection);
    }
}

/// Runs the streams of HTTP/2 among the tasks of the mesh.
#[derive(Clone)]
struct Executor {
    tasks: Tasks,
    cut: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.tasks.spawn_until(self.cut.clone(), stream);
    }
}

/// Says `connection: close` while the process drains: a client that is told does not send its next request into a connection
/// that is being closed.
#[derive(Clone)]
struct Closing<S> {
    inner: S,
    serving: Arc<Serving>,
}

impl<S, B> Service<Request<Incoming>> for Closing<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ClosingFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        ClosingFuture {
            http1: request.version() < Version::HTTP_2,
            inner: self.inner.call(request),
            serving: Arc::clone(&self.serving),
        }
    }
}

pin_project! {
    struct ClosingFuture<F> {
        #[pin]
        inner: F,
        http1: bool,
        serving: Arc<Serving>,
    }
}

impl<F, B, E> Future for ClosingFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut answer = std::task::ready!(this.inner.poll(cx));
        if *this.http1
            && this.serving.is_draining()
            && let Ok(response) = &mut answer
        {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        Poll::Ready(answer)
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

/// A server could not begin, or has ended, but not as it should.
#[derive(Debug)]
pub struct ServeError {
    what: What,
    cut_off: usize,
}

#[derive(Debug)]
enum What {
    Signals(io::Error),
    Register(RegisterError),
    CutOff(Option<ShutdownError>),
}

impl ServeError {
    fn signals(error: io::Error) -> Self {
        Self {
            what: What::Signals(error),
            cut_off: 0,
        }
    }

    fn register(error: RegisterError) -> Self {
        Self {
            what: What::Register(error),
            cut_off: 0,
        }
    }

    fn check(cut_off: usize, ended: Result<(), ShutdownError>) -> Result<(), Self> {
        let ended = ended.err();
        if cut_off == 0 && ended.is_none() {
            return Ok(());
        }
        Err(Self {
            what: What::CutOff(ended),
            cut_off,
        })
    }

    /// Connections that were closed while requests were in flight on them.
    pub fn cut_off(&self) -> usize {
        self.cut_off
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Signals(_) => f.write_str("signals cannot be heard"),
            What::Register(_) => f.write_str("the process could not be registered"),
            What::CutOff(None) => write!(f, "{} connections were cut off", self.cut_off),
            What::CutOff(Some(ended)) => {
                write!(f, "{} connections were cut off; {ended}", self.cut_off)
            }
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.what {
            What::Signals(error) => Some(error),
            What::Register(error) => Some(error),
            What::CutOff(ended) => ended.as_ref().map(|ended| ended as _),
        }
    }
}
