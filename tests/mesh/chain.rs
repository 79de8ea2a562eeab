//! Services that call services: who tries again, and who leaves it to those beneath.

use std::io;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_mesh::{
    Body, Config, Endpoint, Mesh, MeshService, discovery::Static, http::server::ServerLayer,
};

use crate::support::name;

type Answer = Response<Full<Bytes>>;
type Served = BoxCloneSyncService<Request<Body>, Answer, io::Error>;

/// Breaks off whatever it is asked, and counts.
fn broken(asked: &Arc<AtomicUsize>) -> Served {
    let asked = Arc::clone(asked);
    BoxCloneSyncService::new(service_fn(move |_: Request<Body>| {
        asked.fetch_add(1, Ordering::SeqCst);
        async { Err(io::ErrorKind::ConnectionReset.into()) }
    }))
}

/// The service `next` as a mesh calls it that may try three times.
async fn calling(next: Served) -> (Mesh, MeshService<Served>) {
    let endpoint = Endpoint::new(([127, 0, 0, 1], 80).into());
    let config = "[defaults.retry]\nattempts = 3\nbudget = 1.0\nmin_per_second = 100";
    let mesh = Mesh::builder("link")
        .config(Config::parse(config).unwrap())
        .discovery(Static::new().service(name("next"), [endpoint]))
        .start()
        .await
        .unwrap();
    let client = mesh
        .layer("next")
        .unwrap()
        .over(move |_: &Endpoint| next.clone());
    (mesh, client)
}

/// A server whose handler asks `next`, and says what that says or fails as that does.
fn asks(next: MeshService<Served>) -> Served {
    let handler = service_fn(move |_: Request<Body>| {
        let next = next.clone();
        async move {
            let answered = next.oneshot(Request::new(Body::empty())).await;
            answered.map(bodiless)
        }
    });
    let server = ServerLayer::new().layer(handler);
    let server = server.map_response(bodiless);
    BoxCloneSyncService::new(server.map_err(|never| match never {}))
}

fn bodiless<B>(answer: Response<B>) -> Answer {
    answer.map(|_| Full::default())
}

// scenario S1: retries of several layers would multiply.
#[tokio::test(start_paused = true)]
async fn what_a_chain_of_three_meshes_cannot_do_is_tried_three_times_and_not_twenty_seven() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (_c, last) = calling(broken(&asked)).await;
    let (_b, middle) = calling(asks(last)).await;
    let (_a, first) = calling(asks(middle)).await;
    let answer = first.get("/").await;
    assert_eq!(answer.unwrap().status(), 502);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}
