//! The servers, and how they fail.

use std::{
    future::IntoFuture,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime,
    sync::watch,
    time::{self, Instant},
};

use crate::script::{self, Condition, SERVERS};

/// What a healthy server takes for an answer.
const WORK: Duration = Duration::from_millis(3);

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// The servers of the service.
pub(crate) struct Fleet(Vec<Server>);

impl Fleet {
    /// Starts them, each on a port that the system picks, in the condition that the script starts with.
    pub(crate) fn start() -> io::Result<Self> {
        let servers: io::Result<Vec<_>> = script::first().into_iter().map(Server::start).collect();
        servers.map(Self)
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|server| server.address).collect()
    }

    pub(crate) fn conditions(&self) -> [Condition; SERVERS] {
        std::array::from_fn(|i| *self.0[i].condition.borrow())
    }

    /// Makes the servers suffer, spread over `run`, what the script has for them.
    pub(crate) async fn suffer(&self, run: Duration) {
        let start = Instant::now();
        for change in script::changes(run) {
            time::sleep_until(start + change.at).await;
            self.0[change.server]
                .condition
                .send_replace(change.condition);
        }
    }

    /// Ends them all.
    pub(crate) fn stop(self) {
        for server in self.0 {
            server.stop();
        }
    }
}

/// A thread with a runtime of its own, so that it can die as a process does: at once, with all its connections.
struct Server {
    address: SocketAddr,
    condition: watch::Sender<Condition>,
    thread: JoinHandle<()>,
}

impl Server {
    fn start(condition: Condition) -> io::Result<Self> {
        let socket = reserve(([127, 0, 0, 1], 0).into())?;
        let address = socket.local_addr()?;
        let listener = socket.listen(BACKLOG)?.into_std()?;
        let (condition, now) = watch::channel(condition);
        let thread = thread::Builder::new()
            .name(format!("server-{}", address.port()))
            .spawn(move || {
                if let Err(error) = lives(listener, address, now) {
                    eprintln!("the server at {address} cannot go on: {error}");
                }
            })?;
        Ok(Self {
            address,
            condition,
            thread,
        })
    }

    fn stop(self) {
        drop(self.condition);
        if self.thread.join().is_err() {
            eprintln!("the server at {} has panicked", self.address);
        }
    }
}

/// One life after the other, until the fleet is gone.
fn lives(
    mut listener: std::net::TcpListener,
    address: SocketAddr,
    mut now: watch::Receiver<Condition>,
) -> io::Result<()> {
    loop {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(life(listener, address, now.clone()))?;
        // Closes its connections, whatever they were doing.
        drop(runtime);
        if now.has_changed().is_err() {
            return Ok(());
        }
        let socket = reserve(address)?;
        let afterlife = runtime::Builder::new_current_thread().enable_io().build()?;
        let revived = afterlife.block_on(now.wait_for(|now| *now != Condition::Dead));
        if revived.is_err() {
            return Ok(());
        }
        let _entered = afterlife.enter();
        listener = socket.listen(BACKLOG)?.into_std()?;
    }
}

/// Takes the port without listening on it: who connects is refused, and nobody else is given it meanwhile.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Serves until it is dead, or the fleet is gone.
async fn life(
    listener: std::net::TcpListener,
    address: SocketAddr,
    mut now: watch::Receiver<Condition>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let answers = Answers {
        address,
        now: now.clone(),
        given: Arc::default(),
    };
    let router = Router::new()
        .route("/orders/{id}", get(order))
        .with_state(answers);
    tokio::select! {
        served = axum::serve(listener, router).into_future() => served,
        _ = now.wait_for(|now| *now == Condition::Dead) => Ok(()),
    }
}

#[derive(Clone)]
struct Answers {
    address: SocketAddr,
    now: watch::Receiver<Condition>,
    given: Arc<AtomicUsize>,
}

/// `GET /orders/{id}`
async fn order(State(answers): State<Answers>, Path(id): Path<u32>) -> Response {
    let condition = *answers.now.borrow();
    if condition == Condition::Failing {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    time::sleep(WORK + condition.delay()).await;
    let given = answers.given.fetch_add(1, Ordering::Relaxed);
    if condition == Condition::Reviving && given % 2 == 0 {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    // Orders differ in size.
    let items = vec!["chair"; id as usize % 50].join(r#"",""#);
    let body = format!(r#"{{"id":{id},"items":["{items}"]}}"#);
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        // Tells the table at the end who it was.
        (header::SERVER, answers.address.to_string()),
    ];
    (headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::net::TcpStream;

    use super::*;

    async fn until(address: SocketAddr, wanted: fn(&io::Result<TcpStream>) -> bool) {
        while !wanted(&TcpStream::connect(address).await) {
            time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn the_dead_refuse_connections_and_come_back_on_their_port() {
        let server = Server::start(Condition::Well).expect("a port is free");
        let address = server.address;
        until(address, Result::is_ok).await;
        for _ in 0..3 {
            server.condition.send_replace(Condition::Dead);
            until(address, |connected| {
                matches!(connected, Err(error) if error.kind() == ErrorKind::ConnectionRefused)
            })
            .await;
            server.condition.send_replace(Condition::Reviving);
            until(address, Result::is_ok).await;
        }
        server.condition.send_replace(Condition::Dead);
        server.stop();
    }

    #[tokio::test]
    async fn the_living_end_with_the_fleet() {
        let server = Server::start(Condition::Well).expect("a port is free");
        let address = server.address;
        until(address, Result::is_ok).await;
        tokio::task::spawn_blocking(|| server.stop())
            .await
            .expect("it stops");
        until(address, Result::is_err).await;
    }
}
