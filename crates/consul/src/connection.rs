//! Connections to agents, each driven by whoever uses it: nothing is spawned.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tower_mesh_core::{Clock, Instant};

#[cfg(feature = "tls")]
use crate::tls::Secured;
use crate::{
    address::Address,
    error::{ConsulError, ErrorKind},
};

/// A connection on which one request at a time is made.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Reads and writes while it is polled; none when the connection has ended.
    driver: Option<Driver>,
    /// Why it has ended.
    ended: Option<hyper::Error>,
    /// Where it leads to by TLS, if so.
    #[cfg(feature = "tls")]
    secure: Option<Address>,
}

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// What failed, and whether the agent may have seen the request.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) error: ConsulError,
    pub(crate) sent: bool,
}

/// How long to wait for a connection, and for the rest of an answer that has begun.
const CONNECT: Duration = Duration::from_secs(5);
const REST: Duration = Duration::from_secs(30);

impl Broken {
    pub(crate) fn unsent(error: ConsulError) -> Self {
        Self { error, sent: false }
    }
}

impl Connection {
    pub(crate) async fn open(address: &Address, clock: &Clock) -> Result<Self, Broken> {
        let connect = async { Self::over(address, connect(address).await?).await };
        connected(address, clock.within(CONNECT, connect).await)
    }

    /// The same by TLS: to nobody but who proves to be the agent there.
    #[cfg(feature = "tls")]
    pub(crate) async fn open_secure(
        address: &Address,
        clock: &Clock,
        secured: &Secured,
    ) -> Result<Self, Broken> {
        let connect = async {
            let stream = connect(address).await?;
            let stream = secured.secure(address, stream, clock.now()).await?;
            let mut connection = Self::over(address, stream).await?;
            connection.secure = Some(address.clone());
            Ok(connection)
        };
        connected(address, clock.within(CONNECT, connect).await)
    }

    async fn over(
        address: &Address,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Self, ConsulError> {
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| cannot(address).caused_by(error))?;
        Ok(Self {
            sender,
            driver: Some(Box::pin(driver)),
            ended: None,
            #[cfg(feature = "tls")]
            secure: None,
        })
    }

    /// What has `broken` it. An agent that does not take who we are may say so only when it has been asked something.
    #[cfg(feature = "tls")]
    fn explained(&mut self, broken: Broken) -> Broken {
        use crate::tls::explained;
        let Some(address) = &self.secure else {
            return broken;
        };
        let why = match self.ended.take() {
            Some(ended) => explained(address, &ended).caused_by(ended),
            None => explained(address, &broken.error),
        };
        match why.kind() {
            ErrorKind::Untrusted(_) => Broken {
                error: why.or_caused_by(broken.error),
                ..broken
            },
            _ => broken,
        }
    }

    #[cfg(not(feature = "tls"))]
    fn explained(&mut self, broken: Broken) -> Broken {
        broken
    }

    /// Sends `request` and reads the whole answer, of at most `most` bytes.
    pub(crate) async fn exchange(
        &mut self,
        request: http::Request<Full<Bytes>>,
        limit: Duration,
        most: usize,
        clock: &Clock,
    ) -> Result<http::Response<Bytes>, Broken> {
        let answer = self.ask(request, limit, most, clock).await;
        answer.map_err(|broken| self.explained(broken))
    }

    async fn ask(
        &mut self,
        request: http::Request<Full<Bytes>>,
        limit: Duration,
        most: usize,
        clock: &Clock,
    ) -> Result<http::Response<Bytes>, Broken> {
        let Self {
            sender,
            driver,
            ended,
            ..
        } = self;
        let work = async {
            if let Err(error) = sender.ready().await {
                let error = ConsulError::unavailable("the connection was closed").caused_by(error);
                return Err(Broken { error, sent: false });
            }
            let sent = sender.send_request(request);
            let response = match clock.within(limit, sent).await {
                Some(Ok(response)) => response,
                Some(Err(error)) => {
                    let sent = !error.is_canceled();
                    let error = ConsulError::unavailable("the connection broke").caused_by(error);
                    return Err(Broken { error, sent });
                }
                None => return Err(late(format!("the agent has not answered within {limit:?}"))),
            };
            let (head, body) = response.into_parts();
            let whole = Limited::new(body, most).collect();
            match clock.within(REST, whole).await {
                Some(Ok(whole)) => Ok(http::Response::from_parts(head, whole.to_bytes())),
                Some(Err(error)) => Err(Broken {
                    error: cut_off(error, most),
                    sent: true,
                }),
                None => Err(late(format!("the answer was not complete within {REST:?}"))),
            }
        };
        let mut work = pin!(work);
        poll_fn(|cx| {
            // First, so that what has arrived is there.
            drive(driver, ended, cx);
            work.as_mut().poll(cx)
        })
        .await
    }

    /// Whether it can be used again, as far as is known here.
    async fn is_alive(&mut self) -> bool {
        let Self {
            sender,
            driver,
            ended,
            ..
        } = self;
        poll_fn(|cx| {
            drive(driver, ended, cx);
            Poll::Ready(())
        })
        .await;
        driver.is_some() && sender.is_ready()
    }
}

/// One that has ended is dropped at once: only then is who waits for an answer told that none will come.
fn drive(driver: &mut Option<Driver>, ended: &mut Option<hyper::Error>, cx: &mut Context<'_>) {
    let polled = driver.as_mut().map(|driver| driver.as_mut().poll(cx));
    if let Some(Poll::Ready(result)) = polled {
        *driver = None;
        *ended = result.err();
    }
}

async fn connect(address: &Address) -> Result<TcpStream, ConsulError> {
    let stream = TcpStream::connect((address.host(), address.port())).await;
    let stream = stream.map_err(|error| cannot(address).caused_by(error))?;
    // Requests are small and waited for.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

fn cannot(address: &Address) -> ConsulError {
    ConsulError::unavailable(format!("cannot connect to the agent at {address}"))
}

/// What has come of it within the time for it; nothing was sent yet.
fn connected<T>(address: &Address, done: Option<Result<T, ConsulError>>) -> Result<T, Broken> {
    done.unwrap_or_else(|| Err(cannot(address)))
        .map_err(Broken::unsent)
}

fn late(message: String) -> Broken {
    Broken {
        error: ConsulError::unavailable(message),
        sent: true,
    }
}

fn cut_off(error: Box<dyn std::error::Error + Send + Sync>, most: usize) -> ConsulError {
    if error.is::<LengthLimitError>() {
        let message = format!("the answer is larger than the {most} bytes that are allowed");
        return ConsulError::new(ErrorKind::TooLarge, message);
    }
    ConsulError::unavailable("the answer broke off").caused_by(error)
}

/// Connections that wait to be used again.
pub(crate) struct Idle(Mutex<Vec<(usize, Instant, Connection)>>);

const MOST_IDLE: usize = 8;
/// An agent closes them later.
const OLDEST: Duration = Duration::from_secs(30);

impl Idle {
    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }

    /// A connection to the agent at place `at` that seems to be alive.
    pub(crate) async fn take(&self, at: usize, now: Instant) -> Option<Connection> {
        loop {
            let mut connection = self.pop(at, now)?;
            if connection.is_alive().await {
                return Some(connection);
            }
        }
    }

    fn pop(&self, at: usize, now: Instant) -> Option<Connection> {
        let mut idle = self.lock();
        idle.retain(|(_, since, _)| now.since(*since) < OLDEST);
        let place = idle.iter().rposition(|(place, ..)| *place == at)?;
        Some(idle.remove(place).2)
    }

    pub(crate) fn put(&self, at: usize, now: Instant, connection: Connection) {
        let mut idle = self.lock();
        if idle.len() == MOST_IDLE {
            idle.remove(0);
        }
        idle.push((at, now, connection));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(usize, Instant, Connection)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
