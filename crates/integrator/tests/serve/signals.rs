//! A real process and real signals.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use axum::{Router, routing::get as on_get};
use http::StatusCode;
use tower_mesh::Mesh;

use crate::support::{get, plain, text, until};

/// Not a test: the process that the tests below start.
#[tokio::test]
#[ignore = "the child of other tests"]
async fn child() {
    if std::env::var_os("MESH_TEST_CHILD").is_none() {
        return;
    }
    let mesh = Mesh::builder("orders").start().await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("\nlistens on {}", listener.local_addr().unwrap());
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    let slow = async || {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let stuck = async || {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<()>().await;
    };
    let begun = async || BEGUN.load(Ordering::SeqCst).to_string();
    let app = Router::new()
        .route("/slow", on_get(slow))
        .route("/stuck", on_get(stuck))
        .route("/begun", on_get(begun));
    let serve = mesh.serve(listener, app.layer(mesh.server_layer()));
    let ended = serve
        .propagation(Duration::from_millis(100))
        .drain_limit(Duration::from_secs(600))
        .await;
    std::process::exit(if ended.is_ok() { 0 } else { 7 });
}

struct Process(Child, SocketAddr);

impl Process {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "signals::child", "--ignored", "--nocapture"])
            .env("MESH_TEST_CHILD", "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("listens on ")?.parse().ok())
            .unwrap();
        Self(child, address)
    }

    fn terminate(&self) {
        let pid = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn sigterm_ends_a_process_after_its_last_answer() {
    let mut process = Process::start();
    let (client, to) = (plain(), process.1);
    assert_eq!(
        get(&client, to, "/health/ready").await.unwrap().status(),
        StatusCode::OK
    );
    let answer =
        tokio::spawn(async move { get(&plain(), to, "/slow").await.map(|it| it.status()) });
    until(async || text(get(&plain(), to, "/begun").await.unwrap()).await == "1").await;
    process.terminate();
    assert_eq!(answer.await.unwrap().unwrap(), StatusCode::OK);
    assert_eq!(process.0.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_second_sigterm_ends_it_at_once() {
    let mut process = Process::start();
    let to = process.1;
    let stuck = tokio::spawn(async move { get(&plain(), to, "/stuck").await.is_err() });
    until(async || text(get(&plain(), to, "/begun").await.unwrap()).await == "1").await;
    process.terminate();
    // It accepts no more: it drains.
    until(async || get(&plain(), to, "/health/live").await.is_err()).await;
    assert!(process.0.try_wait().unwrap().is_none());
    process.terminate();
    assert!(stuck.await.unwrap());
    assert_eq!(
        process.0.wait().unwrap().code(),
        Some(7),
        "something was cut off"
    );
}
