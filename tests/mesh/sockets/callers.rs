//! Callers that misbehave, and a server of the mesh.

use std::{
    future::{IntoFuture, pending},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body as AxumBody,
    extract::State,
    routing::{get, post},
};
use futures_util::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower_mesh::{Mesh, MeshServerLayer};

use super::Made;
use crate::support::until;

/// A server that says how many handlers and bodies of requests it has.
struct Server {
    address: SocketAddr,
    layer: MeshServerLayer,
    made: Made,
    begun: Arc<AtomicUsize>,
    broken: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let mesh = Mesh::builder("orders").start().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            layer: mesh.server_layer(),
            made: Made::default(),
            begun: Arc::default(),
            broken: Arc::default(),
        };
        let (begun, made) = (Arc::clone(&server.begun), server.made.clone());
        let app = Router::new()
            .route(
                "/endless",
                get(async move || AxumBody::from_stream(made.endless())),
            )
            .route("/hang", post(hang))
            .with_state(begun)
            .route("/read", post(read))
            .with_state(Arc::clone(&server.broken))
            .layer(server.layer.clone());
        tokio::spawn(mesh.serve(listener, app).until(pending()).into_future());
        server
    }

    async fn connect(&self, say: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(say.as_bytes()).await.unwrap();
        stream
    }

    async fn runs(&self, requests: usize) {
        until("so many run", || self.layer.limits().in_use == requests).await;
    }
}

async fn hang(State(begun): State<Arc<AtomicUsize>>) {
    begun.fetch_add(1, Ordering::SeqCst);
    pending().await
}

/// Reads a body to its end, and counts those that break.
async fn read(State(broken): State<Arc<AtomicUsize>>, body: AxumBody) -> &'static str {
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        if piece.is_err() {
            broken.fetch_add(1, Ordering::SeqCst);
        }
    }
    "read"
}

#[tokio::test]
async fn who_reads_nothing_is_made_nothing_for_and_gives_its_permit_back_when_it_goes() {
    let server = Server::start().await;
    let stream = server
        .connect("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    server.made.stands_still().await;
    assert_eq!(server.layer.limits().in_use, 1);
    drop(stream);
    server.runs(0).await;
}

#[tokio::test]
async fn who_closes_a_half_while_its_request_runs_has_gone() {
    let server = Server::start().await;
    let head = "POST /hang HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    let mut stream = server.connect(head).await;
    until("it runs", || server.begun.load(Ordering::SeqCst) == 1).await;
    stream.shutdown().await.unwrap();
    server.runs(0).await;
    assert_eq!(server.layer.counts().abandoned, 1);
}

#[tokio::test]
async fn who_resets_in_the_middle_of_an_upload_breaks_it_for_the_handler_and_for_nobody_else() {
    let server = Server::start().await;
    let head = "POST /read HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf";
    let stream = server.connect(head).await;
    server.runs(1).await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    server.runs(0).await;
    // It is told, or dropped before: both end it.
    assert!(server.broken.load(Ordering::SeqCst) <= 1);
    let mut stream = server
        .connect("POST /read HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nfour")
        .await;
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn an_upload_that_never_ends_has_the_time_of_its_deadline() {
    let server = Server::start().await;
    let head = "POST /read HTTP/1.1\r\nhost: a\r\nx-request-timeout-ms: 100\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut stream = server.connect(head).await;
    let (mut reader, mut writer) = stream.split();
    let never_ends = async {
        while writer.write_all(b"1\r\na\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        pending::<()>().await
    };
    let mut answer = [0; 12];
    tokio::select! {
        read = reader.read_exact(&mut answer) => { read.unwrap(); }
        () = never_ends => {}
    }
    assert_eq!(&answer, b"HTTP/1.1 504");
    server.runs(0).await;
}
