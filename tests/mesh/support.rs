//! Real servers on loopback ports that the system picks, and waiting for conditions.

use std::{
    collections::HashSet,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
    response::Response,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tower_mesh::{Endpoint, ServiceName};

/// A real axum server; dropped, it is gone: its port refuses connections.
pub struct Server {
    address: SocketAddr,
    hits: Arc<AtomicU64>,
    peers: Arc<Mutex<HashSet<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves every request with `handler`.
    pub async fn start<F, Fut>(handler: F) -> Self
    where
        F: Fn(Request) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hits = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&hits);
        let peers = Arc::<Mutex<HashSet<_>>>::default();
        let seen = Arc::clone(&peers);
        let app = Router::new().fallback(move |peer: ConnectInfo<SocketAddr>, request: Request| {
            count.fetch_add(1, Ordering::SeqCst);
            seen.lock().unwrap().insert(peer.0);
            handler(request)
        });
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            address,
            hits,
            peers,
            task,
        }
    }

    /// Serves every request with `status` and `text`.
    pub async fn answering(status: u16, text: &'static str) -> Self {
        Self::start(move |_| async move { answer(status, text) }).await
    }

    /// Accepts requests and never answers.
    pub async fn hanging() -> Self {
        Self::start(|_| std::future::pending()).await
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::new(self.address)
    }

    /// How many requests have reached it.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::SeqCst)
    }

    /// Where requests have come from since it was last asked: an address for each connection.
    pub fn take_peers(&self) -> HashSet<SocketAddr> {
        std::mem::take(&mut self.peers.lock().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn answer(status: u16, text: &'static str) -> Response {
    Response::builder()
        .status(status)
        .body(Body::from(text))
        .unwrap()
}

/// An address at which nothing listens.
pub async fn dead_endpoint() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Endpoint::new(listener.local_addr().unwrap())
}

pub fn name(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

/// Waits until `condition` holds; a test that waits for ever is ended by the runner's own limit, which names it.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("still not so after 30 s: {what}");
}
