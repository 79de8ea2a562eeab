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
use tokio::net::TcpStream;
use tower_mesh_core::{Clock, Instant};

use crate::{
    address::Address,
    error::{ConsulError, ErrorKind},
};

/// A connection on which one request at a time is made.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Reads and writes while it is polled; none when the connection has ended.
    driver: Option<Driver>,
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

impl Connection {
    pub(crate) async fn open(address: &Address, clock: &Clock) -> Result<Self, Broken> {
        let unsent = |error: ConsulError| Broken { error, sent: false };
        let cannot =
            || ConsulError::unavailable(format!("cannot connect to the agent at {address}"));
        let connect = TcpStream::connect((address.host(), address.port()));
        let stream = match within(clock, CONNECT, connect).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => return Err(unsent(cannot().caused_by(error))),
            None => return Err(unsent(cannot())),
        };
        // Requests are small and waited for.
        let _ = stream.set_nodelay(true);
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unsent(cannot().caused_by(error)))?;
        Ok(Self {
            sender,
            driver: Some(Box::pin(driver)),
        })
    }

    /// Sends `request` and reads the whole answer, of at most `most` bytes.
    pub(crate) async fn exchange(
        &mut self,
        request: http::Request<Full<Bytes>>,
        limit: Duration,
        most: usize,
        clock: &Clock,
    ) -> Result<http::Response<Bytes>, Broken> {
        let Self { sender, driver } = self;
        let work = async {
            if let Err(error) = sender.ready().await {
                let error = ConsulError::unavailable("the connection was closed").caused_by(error);
                return Err(Broken { error, sent: false });
            }
            let sent = sender.send_request(request);
            let response = match within(clock, limit, sent).await {
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
            match within(clock, REST, whole).await {
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
            drive(driver, cx);
            work.as_mut().poll(cx)
        })
        .await
    }

    /// Whether it can be used again, as far as is known here.
    async fn is_alive(&mut self) -> bool {
        let Self { sender, driver } = self;
        poll_fn(|cx| {
            drive(driver, cx);
            Poll::Ready(())
        })
        .await;
        driver.is_some() && sender.is_ready()
    }
}

/// One that has ended is dropped at once: only then is who waits for an answer told that none will come.
fn drive(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    if driver
        .as_mut()
        .is_some_and(|driver| driver.as_mut().poll(cx).is_ready())
    {
        *driver = None;
    }
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

/// What `future` comes to, unless `limit` is over first.
pub(crate) async fn within<T>(
    clock: &Clock,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    use futures_util::future::{Either, select};
    match select(pin!(future), pin!(clock.sleep(limit))).await {
        Either::Left((out, _)) => Some(out),
        Either::Right(_) => None,
    }
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
