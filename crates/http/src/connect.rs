//! Connections to one endpoint.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector},
    rt::TokioIo,
};
use tokio::{
    io::{AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower_mesh_core::{BoxError, BoxFuture, Clock, Kind, Refusal};
use tower_service::Service;

/// What all connectors of a client's endpoints have in common.
#[derive(Clone)]
pub(crate) struct Dial {
    pub(crate) tcp: HttpConnector,
    pub(crate) timeout: Duration,
    pub(crate) most: usize,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::tls::Identity>,
}

/// Connects to one endpoint, whatever a URI says: a caller cannot steer it elsewhere.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Inner>);

struct Inner {
    dial: Dial,
    /// The endpoint's own address, in plain: what is spoken over the connection is decided here, not by a URI.
    at: Uri,
    /// As many connections as may be.
    places: Arc<Semaphore>,
    /// One that was made before anybody asked.
    spare: Mutex<Option<Stream>>,
}

impl Connector {
    pub(crate) fn new(dial: Dial, at: Uri) -> Self {
        Self(Arc::new(Inner {
            places: Arc::new(Semaphore::new(dial.most)),
            spare: Mutex::default(),
            at,
            dial,
        }))
    }

    /// Makes a connection ahead of the first request, and gives it up when none has come within `keep`.
    ///
    /// What goes wrong is not told: the first request will meet it.
    pub(crate) fn warm(&self, keep: Duration) -> impl Future<Output = ()> + Send + 'static {
        // A client that is dropped takes its connection along.
        let inner = Arc::downgrade(&self.0);
        async move {
            let Some(connect) = inner.upgrade().map(Inner::connect) else {
                return;
            };
            let Ok(stream) = connect.await else { return };
            match inner.upgrade() {
                Some(inner) => *inner.spare() = Some(stream),
                None => return,
            }
            Clock::tokio().sleep(keep).await;
            if let Some(inner) = inner.upgrade() {
                let spare = inner.spare().take();
                drop(spare);
            }
        }
    }
}

impl Inner {
    fn spare(&self) -> std::sync::MutexGuard<'_, Option<Stream>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was made ahead, if it is still one.
    async fn spared(&self) -> Option<Stream> {
        let stream = self.spare().take()?;
        stream.is_open().await.then_some(stream)
    }

    async fn connect(self: Arc<Self>) -> Result<Stream, BoxError> {
        let (dial, clock) = (&self.dial, Clock::tokio());
        let places = Arc::clone(&self.places);
        let late = || Refusal::local(Kind::Overloaded);
        let Some(place) = clock.within(dial.timeout, places.acquire_owned()).await else {
            let all = format!("all {} connections to {} are in use", dial.most, self.at);
            return Err(late().with_context(all).into());
        };
        let place = place.map_err(|closed| BoxError::from(closed.to_string()))?;
        let connecting = clock.within(dial.timeout, dial.connect(&self.at));
        match connecting.await {
            Some(io) => Ok(Stream {
                io: io?,
                _place: Some(place),
            }),
            None => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }
}

impl Dial {
    async fn connect(&self, at: &Uri) -> Result<Io, BoxError> {
        let tcp = self.tcp.clone().call(at.clone()).await?.into_inner();
        #[cfg(feature = "tls")]
        if let Some(identity) = &self.tls {
            return Ok(Io::Tls(Box::new(identity.connect(tcp).await?)));
        }
        Ok(Io::Plain(tcp))
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Stream, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            match inner.spared().await {
                Some(stream) => Ok(stream),
                None => inner.connect().await,
            }
        })
    }
}

/// Connects to whatever a URI names: for what is no service of the mesh.
#[derive(Clone)]
pub(crate) struct Outward {
    pub(crate) tcp: HttpConnector,
    pub(crate) timeout: Duration,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::Tls>,
}

impl Outward {
    async fn connect(mut self, to: Uri) -> Result<Stream, BoxError> {
        let secure = to.scheme() == Some(&http::uri::Scheme::HTTPS);
        #[cfg(feature = "tls")]
        let identity = match (secure, &self.tls) {
            (false, _) => None,
            (true, Some(tls)) => Some(self.identity(tls, &to)?),
            (true, None) => return Err("nobody was said to be trusted for https".into()),
        };
        #[cfg(not(feature = "tls"))]
        if secure {
            return Err("TLS is not built in: switch on the feature `tls`".into());
        }
        let tcp = self.tcp.call(to).await?.into_inner();
        #[cfg(feature = "tls")]
        if let Some(identity) = identity {
            return Ok(Stream::tls(identity.connect(tcp).await?));
        }
        Ok(Stream::plain(tcp))
    }

    #[cfg(feature = "tls")]
    fn identity(&self, tls: &crate::Tls, to: &Uri) -> Result<crate::tls::Identity, BoxError> {
        let identity = crate::tls::Identity::new(tls, to.host().unwrap_or_default())?;
        Ok(identity.speaking(crate::Protocol::Negotiated))
    }
}

impl Service<Uri> for Outward {
    type Response = Stream;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Stream, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let limit = this.timeout;
            let made = Clock::tokio().within(limit, this.connect(to)).await;
            made.unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("at", &self.0.at)
            .finish_non_exhaustive()
    }
}

/// A connection, which has one of the endpoint's places if it is to one.
pub(crate) struct Stream {
    io: Io,
    _place: Option<OwnedSemaphorePermit>,
}

enum Io {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Io {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl Stream {
    /// One that has no place.
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        let (io, _place) = (Io::Plain(tcp), None);
        Self { io, _place }
    }

    /// The same over TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn tls(tls: tokio_rustls::client::TlsStream<TcpStream>) -> Self {
        let (io, _place) = (Io::Tls(Box::new(tls)), None);
        Self { io, _place }
    }

    /// Whether the other side has neither closed it nor broken off; what it may have said already stays unread.
    async fn is_open(&self) -> bool {
        let mut byte = [0];
        poll_fn(|cx| {
            let peeked = self.io.tcp().poll_peek(cx, &mut ReadBuf::new(&mut byte));
            Poll::Ready(match peeked {
                Poll::Pending => true,
                Poll::Ready(Ok(read)) => read > 0,
                Poll::Ready(Err(_)) => false,
            })
        })
        .await
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = self.io.tcp().connected();
        #[cfg(feature = "tls")]
        if let Io::Tls(tls) = &self.io
            && tls.get_ref().1.alpn_protocol() == Some(b"h2")
        {
            return connected.negotiated_h2();
        }
        connected
    }
}

/// Runs `$call` on what `$io` is, as hyper sees it.
macro_rules! on {
    ($this:ident, $io:ident => $call:expr) => {
        match &mut $this.get_mut().io {
            Io::Plain(tcp) => {
                let $io = Pin::new(tcp);
                $call
            }
            #[cfg(feature = "tls")]
            Io::Tls(tls) => {
                let $io = Pin::new(&mut **tls);
                $call
            }
        }
    };
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        on!(self, io => Pin::new(&mut TokioIo::new(io)).poll_read(cx, buf))
    }
}

impl Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on!(self, io => io.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, io => io.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(tcp) => tcp.is_write_vectored(),
            #[cfg(feature = "tls")]
            Io::Tls(tls) => tls.is_write_vectored(),
        }
    }
}
