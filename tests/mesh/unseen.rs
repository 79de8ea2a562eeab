//! Requests that a server of HTTP/2 says it has not looked at: they go elsewhere, a POST too, and to nobody twice.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::Request;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower_mesh::{
    Body, Endpoint, Mesh, MeshService, Policy,
    balance::Strategy,
    core::{Kind, Ratio},
    http::{Addressed, HttpClient, HttpEndpoints, Protocol},
};

use crate::{calls, support::Server};

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
/// `RST_STREAM` of the first stream, with `REFUSED_STREAM`.
const REFUSED: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7];
/// `GOAWAY`: no stream was looked at.
const GOING: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An endpoint that answers the first request of each connection with `frame`, and counts them.
async fn unseeing(frame: &'static [u8]) -> (Endpoint, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(listener.local_addr().unwrap());
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, frame, Arc::clone(&counted)));
        }
    });
    (endpoint, asked)
}

async fn answer(mut stream: TcpStream, frame: &[u8], asked: Arc<AtomicU64>) -> io::Result<()> {
    stream
        .write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])
        .await?;
    stream.read_exact(&mut [0; 24]).await?; // The preface.
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await?;
        if head[3] == HEADERS {
            asked.fetch_add(1, Ordering::SeqCst);
            stream.write_all(frame).await?;
            stream.shutdown().await?;
            stream.read_to_end(&mut Vec::new()).await?;
            return Ok(());
        }
    }
}

async fn over(endpoints: Vec<Endpoint>) -> (Mesh, MeshService<Addressed<HttpClient>>) {
    let mut policy = Policy::default();
    policy.balance = Strategy::RoundRobin;
    // So few calls earn no retry.
    policy.retry.budget = Ratio::ONE;
    let mesh = calls::mesh(endpoints, policy).await;
    let connect = HttpEndpoints::new(|task| drop(tokio::spawn(task))).protocol(Protocol::Http2);
    let orders = mesh.layer("orders").unwrap().over(connect);
    (mesh, orders)
}

fn post() -> Request<Body> {
    Request::post("/").body("one".into()).unwrap()
}

#[tokio::test]
async fn a_post_that_is_refused_unseen_or_comes_after_a_goaway_is_made_once_by_another() {
    for frame in [REFUSED, GOING] {
        let (unseeing, asked) = unseeing(frame).await;
        let whole = Server::answering(200, "made").await;
        let (_mesh, orders) = over(vec![unseeing, whole.endpoint()]).await;
        for _ in 0..2 {
            assert_eq!(orders.send(post()).await.unwrap().status(), 200);
        }
        assert!(asked.load(Ordering::SeqCst) > 0, "one of two had it first");
        assert_eq!(whole.hits(), 2, "each was made once");
    }
}

#[tokio::test]
async fn what_everybody_refuses_unseen_goes_to_each_once_and_is_given_up() {
    for frame in [REFUSED, GOING] {
        let (mut endpoints, mut asked) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            let (endpoint, counted) = unseeing(frame).await;
            endpoints.push(endpoint);
            asked.push(counted);
        }
        let (_mesh, orders) = over(endpoints).await;
        let error = orders.send(post()).await.err().unwrap();
        assert_eq!(error.kind(), Some(Kind::AttemptsExhausted), "{error}");
        assert!(!error.maybe_sent(), "{error}");
        let mut asked: Vec<_> = asked.iter().map(|n| n.load(Ordering::SeqCst)).collect();
        asked.sort_unstable();
        assert_eq!(asked, [0, 0, 1, 1, 1], "three attempts, each elsewhere");
    }
}
