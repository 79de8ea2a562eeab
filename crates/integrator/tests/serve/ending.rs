//! Told to end, a server ends without a failed call.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    routing::{get as on_get, post},
};
use http::{Method, Request, StatusCode, header::CONNECTION};
use tower_mesh::{Body, MemoryRegistry, Serve};

use crate::support::{Running, get, mesh, plain, plain_h2, text, until};

const WORK: Duration = Duration::from_millis(200);

fn app(begun: &Arc<AtomicUsize>) -> Router {
    let begun = Arc::clone(begun);
    let also = Arc::clone(&begun);
    let stuck = move || {
        also.fetch_add(1, Ordering::SeqCst);
        async { pending::<()>().await }
    };
    let work = move || {
        begun.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(WORK).await;
            "done"
        }
    };
    Router::new()
        .route("/work", post(work.clone()).get(work))
        .route("/stuck", on_get(stuck))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

// scenario 30
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_a_server_that_is_told_to_end_fails_no_call_not_even_a_post() {
    let (registry, begun) = (MemoryRegistry::new(), Arc::default());
    let mut first = Running::start(mesh("orders", &registry).await, app(&begun), |serve| {
        serve.propagation(ms(500))
    })
    .await;
    let second = Running::start(mesh("orders", &registry).await, app(&begun), |serve| serve).await;
    let storefront = mesh("storefront", &registry).await;
    let orders = storefront.service("orders").unwrap();
    until(async || orders.endpoints().current().endpoints().len() == 2).await;

    let mut calls = tokio::task::JoinSet::new();
    let mut ended = None;
    let mut every = tokio::time::interval(ms(2)); // 500 a second
    for n in 0..1_000 {
        every.tick().await;
        if n == 250 {
            first.end();
            let (told, end) = (
                Instant::now(),
                std::mem::replace(&mut first.ended, tokio::spawn(async { Ok(()) })),
            );
            ended = Some(tokio::spawn(async move { (end.await, told.elapsed()) }));
        }
        let orders = orders.clone();
        calls.spawn(async move {
            let mut request = Request::new(Body::empty());
            *request.method_mut() = Method::POST;
            *request.uri_mut() = "/work".parse().unwrap();
            orders.send(request).await.map(|response| response.status())
        });
        if n == 300 {
            let client = plain();
            let ready = get(&client, first.address, "/health/ready").await.unwrap();
            assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(ready.headers()[CONNECTION], "close");
            assert_eq!(
                text(ready).await,
                r#"{"ready":false,"reasons":["draining"]}"#
            );
            let live = get(&client, first.address, "/health/live").await.unwrap();
            assert_eq!(live.status(), StatusCode::OK, "it lives all the time");
            assert!(!first.mesh.ready() && second.mesh.ready());
            let late = get(&client, first.address, "/work").await.unwrap();
            assert_eq!(
                late.status(),
                StatusCode::OK,
                "who has not heard of it is served"
            );
        }
    }
    let (ended, took) = ended.unwrap().await.unwrap();
    ended.unwrap().unwrap();
    println!("ended {took:?} after it was told to: a propagation of 500ms, requests of 200ms");
    let failed: Vec<_> = calls
        .join_all()
        .await
        .into_iter()
        .filter(|call| !matches!(call, Ok(StatusCode::OK)))
        .collect();
    assert_eq!(failed.len(), 0, "{:?}", failed.first());
    assert_eq!(first.mesh.tasks(), 0);
    assert!(get(&plain(), first.address, "/work").await.is_err());
    assert_eq!(orders.endpoints().current().endpoints().len(), 1);
}

#[tokio::test]
async fn a_stream_of_http2_is_answered_after_the_connection_was_told_that_it_goes() {
    let begun = Arc::<AtomicUsize>::default();
    let registry = MemoryRegistry::new();
    let mut server = Running::start(mesh("orders", &registry).await, app(&begun), |serve| {
        serve.propagation(Duration::ZERO)
    })
    .await;
    let client = plain_h2();
    let answer = tokio::spawn({
        let (client, to) = (client.clone(), server.address);
        async move {
            get(&client, to, "/work")
                .await
                .map(|response| response.status())
        }
    });
    until(async || begun.load(Ordering::SeqCst) == 1).await;
    server.end();
    assert_eq!(answer.await.unwrap().unwrap(), StatusCode::OK);
    server.ended.await.unwrap().unwrap();
    assert!(get(&client, server.address, "/work").await.is_err());
    assert_eq!(server.mesh.tasks(), 0);
}

#[tokio::test]
async fn a_handler_that_is_stuck_is_cut_off_when_the_time_for_it_is_over() {
    let (registry, begun) = (MemoryRegistry::new(), Arc::<AtomicUsize>::default());
    let short = |serve: Serve<Router>| serve.propagation(Duration::ZERO).drain_limit(ms(50));
    let mut server = Running::start(mesh("orders", &registry).await, app(&begun), short).await;
    let to = server.address;
    let stuck = tokio::spawn(async move { get(&plain(), to, "/stuck").await.is_err() });
    until(async || begun.load(Ordering::SeqCst) == 1).await;
    server.end();
    let error = server.ended.await.unwrap().unwrap_err();
    assert_eq!(error.cut_off(), 1, "{error}");
    assert!(stuck.await.unwrap());
    assert_eq!(server.mesh.tasks(), 0);
}

#[tokio::test]
async fn told_twice_it_ends_at_once() {
    let registry = MemoryRegistry::new();
    let hour = Duration::from_secs(3600);
    let mut server = Running::start(
        mesh("orders", &registry).await,
        app(&Arc::default()),
        |serve| serve.propagation(hour).drain_limit(hour),
    )
    .await;
    assert_eq!(
        get(&plain(), server.address, "/health/ready")
            .await
            .unwrap()
            .status(),
        StatusCode::OK
    );
    server.end();
    until(async || !server.mesh.ready()).await;
    server.at_once.take().unwrap().send(()).unwrap();
    let _ = server.ended.await.unwrap();
    assert_eq!(server.mesh.tasks(), 0);
}

#[tokio::test]
async fn dropped_it_lets_go_of_its_connections_and_the_mesh_runs_on() {
    let (registry, begun) = (MemoryRegistry::new(), Arc::<AtomicUsize>::default());
    let server = Running::start(mesh("orders", &registry).await, app(&begun), |serve| serve).await;
    let (client, to) = (plain(), server.address);
    let stuck = tokio::spawn(async move { get(&plain(), to, "/stuck").await.is_err() });
    until(async || begun.load(Ordering::SeqCst) == 1).await;
    server.ended.abort();
    until(async || get(&client, to, "/health/live").await.is_err()).await;
    assert!(stuck.await.unwrap(), "at once, whatever runs on them");
    assert!(server.mesh.ready());
}
