//! The connections of a server, from the first that is accepted to the last that is drained.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use pin_project_lite::pin_project;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_mesh_core::{BoxError, Clock};
use tower_service::Service;

use super::Serving;
use crate::{mesh::Core, tasks::Tasks};

/// When there are no file descriptors, they do not come back at once; axum's pause.
const PAUSE: Duration = Duration::from_secs(1);

/// The connections of a server.
pub(super) struct Connections<S> {
    listener: TcpListener,
    service: Closing<S>,
    builder: auto::Builder<Executor>,
    graceful: GracefulShutdown,
    pub(super) tracker: TaskTracker,
    tasks: Tasks,
    clock: Clock,
    /// Ends all of them at once.
    pub(super) cut: CancellationToken,
}

impl<S> Connections<S> {
    pub(super) fn new(listener: TcpListener, service: S, core: &Core) -> Self {
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

    /// How many there are.
    pub(super) fn open(&self) -> usize {
        self.tracker.len()
    }

    /// Accepts no more, says so on those there are, and waits until they have ended.
    pub(super) async fn drain(self) {
        drop(self.listener);
        self.tracker.close();
        self.graceful.shutdown().await;
        self.tracker.wait().await;
    }
}

impl<S, B> Connections<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    /// Serves whoever connects.
    pub(super) async fn accept(&mut self) -> Infallible {
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
    pub(super) async fn accept_waiting(&mut self) {
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

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
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
        let mut answer = ready!(this.inner.poll(cx));
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
