//! Stands between a client and an agent, and can be cut or slowed down.

use std::{net::SocketAddr, sync::Arc, time::Duration};

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
}

#[derive(Clone, Copy, Default)]
struct State {
    cut: bool,
    /// How long an answer is held back.
    delay: Duration,
}

impl Proxy {
    pub(crate) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(watch::Sender::new(State::default()));
        let seen = state.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !seen.borrow().cut {
                    tokio::spawn(carry(client, port, seen.clone()));
                }
            }
        });
        Self { address, state }
    }

    #[allow(dead_code, reason = "the crate for DNS stands behind one, too")]
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
        self.state.send_modify(|state| state.cut = false);
    }

    pub(crate) fn slow_down(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }
}

async fn carry(mut client: TcpStream, port: u16, mut state: watch::Receiver<State>) {
    let Ok(mut agent) = TcpStream::connect(("127.0.0.1", port)).await else {
        return;
    };
    let delays = state.clone();
    let (mut from_client, mut to_client) = client.split();
    let (mut from_agent, mut to_agent) = agent.split();
    let there = tokio::io::copy(&mut from_client, &mut to_agent);
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
        _ = there => {}
        () = back => {}
        _ = state.wait_for(|state| state.cut) => {}
    }
}
