//! Stands between a client and an agent, counts what is asked, and can be cut, slowed down, or answer in the agent's place.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tower_mesh_consul::Consul;
use tower_mesh_core::Clock;

#[derive(Clone)]
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    requests: Arc<AtomicU64>,
}

#[derive(Clone, Copy, Default)]
struct State {
    cut: bool,
    /// Each request is answered with 500.
    fails: bool,
    /// How long an answer is held back.
    delay: Duration,
}

impl Proxy {
    pub(crate) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(watch::Sender::new(State::default()));
        let seen = state.subscribe();
        let requests = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let now = *seen.borrow();
                match now {
                    State { cut: true, .. } => {}
                    State { fails: true, .. } => {
                        tokio::spawn(fail(client, seen.clone(), Arc::clone(&count)));
                    }
                    _ => {
                        tokio::spawn(carry(client, port, seen.clone(), Arc::clone(&count)));
                    }
                }
            }
        });
        Self {
            address,
            state,
            requests,
        }
    }

    /// How many requests have come.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Answers in the agent's place that it has failed.
    pub(crate) fn fail(&self) {
        self.state.send_modify(|state| state.fails = true);
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn consul(&self) -> Consul {
        Consul::new(&self.address.to_string()).unwrap()
    }

    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.cut = true);
    }

    pub(crate) fn mend(&self) {
        self.state
            .send_modify(|state| (state.cut, state.fails) = (false, false));
    }

    pub(crate) fn slow_down(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }
}

/// How many requests begin in what has come. Each is small, and is written at once.
fn begun(bytes: &[u8]) -> u64 {
    const LINE: &[u8] = b" HTTP/1.1\r\n";
    let lines = bytes.windows(LINE.len()).filter(|bytes| *bytes == LINE);
    lines.count() as u64
}

async fn fail(mut client: TcpStream, mut state: watch::Receiver<State>, count: Arc<AtomicU64>) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 17\r\n\r\nNo cluster leader";
    let answer = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = client.read(&mut buffer).await {
            for _ in 0..begun(&buffer[..read]) {
                count.fetch_add(1, Ordering::Relaxed);
                let _ = client.write_all(ANSWER).await;
            }
        }
    };
    tokio::select! {
        () = answer => {}
        _ = state.wait_for(|state| !state.fails) => {}
    }
}

async fn carry(
    mut client: TcpStream,
    port: u16,
    mut state: watch::Receiver<State>,
    count: Arc<AtomicU64>,
) {
    let Ok(mut agent) = TcpStream::connect(("127.0.0.1", port)).await else {
        return;
    };
    let delays = state.clone();
    let (mut from_client, mut to_client) = client.split();
    let (mut from_agent, mut to_agent) = agent.split();
    let there = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            count.fetch_add(begun(&buffer[..read]), Ordering::Relaxed);
            if to_agent.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from_agent.read(&mut buffer).await.unwrap_or(0);
            if read == 0 {
                return;
            }
            let delay = delays.borrow().delay;
            if !delay.is_zero() {
                Clock::tokio().sleep(delay).await;
            }
            if to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    // Whatever ends first ends both: dropping them closes the connections.
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = state.wait_for(|state| state.cut || state.fails) => {}
    }
}
