//! Bodies of any length pass through the mesh in the memory of a short one.
//!
//! One thread runs everything, both ends of each connection: what is counted is all that lives on the heap. 64 MiB each way,
//! or a GiB with `cargo xtask test --long`. The figures are printed by
//! `TOWER_MESH_LONG=1 cargo test --release -p tower-mesh-tests --test streams -- --nocapture`. A binary of its own, for its
//! allocator.

// Tests are users: they spawn servers as users do. Time is reported, never asserted.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

use std::{
    convert::Infallible,
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body as AxumBody, BodyDataStream},
    routing::{get, put},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{Method, Request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::net::TcpListener;
use tower_mesh::{
    Body, Endpoint, Mesh, MeshService, Policy, ServiceName,
    discovery::Static,
    http::{Addressed, HttpClient, HttpEndpoints, Protocol},
};

type Orders = MeshService<Addressed<HttpClient>>;

const MIB: u64 = 1 << 20;
const PIECE: u64 = 64 << 10;

/// What may live at a time beyond what lived before: the windows of HTTP/2, which are 2 MiB, sockets' buffers, and no more.
const MOST: u64 = 4 * MIB;

fn length() -> u64 {
    match std::env::var_os("TOWER_MESH_LONG") {
        Some(_) => 1_024 * MIB,
        None => 64 * MIB,
    }
}

/// `length` bytes, each piece of which is allocated when it is asked for.
fn pieces(length: u64) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let piece = |at| Ok(Bytes::from(vec![at as u8; PIECE as usize]));
    stream::iter(0..length / PIECE).map(piece)
}

async fn count(body: AxumBody) -> String {
    let mut length = 0;
    let mut pieces: BodyDataStream = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        length += piece.unwrap().len() as u64;
    }
    length.to_string()
}

async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let down = async || AxumBody::from_stream(pieces(length()));
    let app = Router::new()
        .route("/up", put(count).post(count))
        .route("/down", get(down))
        .layer(axum::extract::DefaultBodyLimit::disable());
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn orders(protocol: Protocol) -> (Mesh, Orders) {
    let endpoint = Endpoint::new(server().await);
    let mut policy = Policy::default();
    // Against hanging only. An upload is one attempt, and its head comes last.
    policy.timeout = Duration::from_secs(200);
    policy.retry.per_try_timeout = None;
    let orders = ServiceName::new("orders").unwrap();
    let mesh = Mesh::builder("shop")
        .discovery(Static::new().service(orders, [endpoint]))
        .defaults(policy)
        .start()
        .await
        .unwrap();
    let connect = HttpEndpoints::new(|task| drop(tokio::spawn(task))).protocol(protocol);
    let orders = mesh.layer("orders").unwrap().over(connect);
    (mesh, orders)
}

async fn upload(orders: &Orders, method: Method) {
    let body = StreamBody::new(pieces(length()).map(|piece| piece.map(Frame::data)));
    let request = Request::builder().method(method).uri("/up");
    let request = request.body(Body::new(body)).unwrap();
    let response = orders.send(request).await.unwrap();
    let received = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(received, length().to_string().as_bytes());
}

async fn download(orders: &Orders) {
    let mut body = orders.get("/down").await.unwrap().into_body();
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame
            .unwrap()
            .into_data()
            .map_or(0, |data| data.len() as u64);
    }
    assert_eq!(received, length());
}

/// Uploads and downloads, and says what most lived at a time.
fn peak(protocol: Protocol, what: &str, pass: impl AsyncFnOnce(&Orders)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (mesh, orders) = runtime.block_on(orders(protocol));
    let since = Instant::now();
    let counted = allocation_counter::measure(|| runtime.block_on(pass(&orders)));
    let took = since.elapsed();
    println!(
        "{what} over {protocol:?}: {} MiB at {:.0} MiB/s, at most {} KiB at a time",
        length() / MIB,
        (length() / MIB) as f64 / took.as_secs_f64(),
        counted.bytes_max / 1_024
    );
    assert!(
        counted.bytes_max < MOST,
        "{what} over {protocol:?}: {counted:?}"
    );
    let limit = mesh.status().services[0].limit.in_use;
    assert_eq!(limit, 0, "its permit is back");
    runtime
        .block_on(mesh.shutdown(Duration::from_secs(5)))
        .unwrap();
}

#[test]
fn an_upload_streams_in_flat_memory() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        peak(protocol, "POST", async |orders| {
            upload(orders, Method::POST).await
        });
    }
}

#[test]
fn an_upload_that_could_be_sent_again_streams_in_flat_memory() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        peak(protocol, "PUT", async |orders| {
            upload(orders, Method::PUT).await
        });
    }
}

#[test]
fn a_download_streams_in_flat_memory() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        peak(protocol, "GET", async |orders| download(orders).await);
    }
}
