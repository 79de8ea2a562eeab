//! Services that call services: who tries again, and who leaves it to those beneath.

use std::io;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_mesh::{
    Body, Config, Endpoint, Error, Mesh, MeshService, discovery::Static, http::server::ServerLayer,
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
    asks_and_says(next, |answered| answered)
}

/// A server whose handler asks `next`, and says what `says` makes of that.
fn asks_and_says(
    next: MeshService<Served>,
    says: fn(Result<Answer, Error>) -> Result<Answer, Error>,
) -> Served {
    let handler = service_fn(move |_: Request<Body>| {
        let next = next.clone();
        async move {
            let answered = next.oneshot(Request::new(Body::empty())).await;
            says(answered.map(bodiless))
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

/// How often the last of three is asked that answers as `answers`, and what the first is told, where those between say what
/// `says` makes of it.
async fn asked_in_vain(
    last: fn() -> io::Result<Answer>,
    says: fn(Result<Answer, Error>) -> Result<Answer, Error>,
) -> (usize, Answer) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let failing = BoxCloneSyncService::new(service_fn(move |_: Request<Body>| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::ready(last())
    }));
    let (_c, last) = calling(failing).await;
    let (_b, middle) = calling(asks_and_says(last, says)).await;
    let (_a, first) = calling(asks_and_says(middle, says)).await;
    let answer = first.get("/").await.map(bodiless);
    (asked.load(Ordering::SeqCst), answer.unwrap())
}

fn answering(status: u16) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_with_a_failure_three_times_and_is_handed_on_is_not_tried_again_either() {
    let (asked, answer) = asked_in_vain(|| Ok(answering(500)), |answered| answered).await;
    assert_eq!((asked, answer.status().as_u16()), (3, 500));
    assert_eq!(answer.headers()["x-mesh-retry"], "no");
}

#[tokio::test(start_paused = true)]
async fn nor_is_what_a_handler_has_put_into_words_of_its_own() {
    let broken = || Err(io::ErrorKind::ConnectionReset.into());
    let in_its_own_words = |answered: Result<Answer, Error>| match answered {
        Ok(answer) if answer.status().is_success() => Ok(answer),
        _ => Ok(answering(503)),
    };
    let (asked, answer) = asked_in_vain(broken, in_its_own_words).await;
    assert_eq!((asked, answer.status().as_u16()), (3, 503));
    assert_eq!(answer.headers()["x-mesh-retry"], "no");
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_before_it_was_tried_may_be_tried_elsewhere() {
    let (mesh, next) = calling(broken(&Arc::default())).await;
    mesh.shutdown(Duration::from_secs(1)).await.unwrap();
    let server = asks_and_says(next, |_| Ok(answering(503)));
    let answer = server.oneshot(Request::new(Body::empty())).await.unwrap();
    assert!(!answer.headers().contains_key("x-mesh-retry"));
}

#[tokio::test(start_paused = true)]
async fn a_success_is_none_the_worse_for_what_was_tried_in_vain_to_serve_it() {
    let instead = |_| Ok(answering(200));
    let (asked, answer) = asked_in_vain(|| Ok(answering(500)), instead).await;
    assert_eq!((asked, answer.status().as_u16()), (3, 200));
    assert!(answer.headers().is_empty(), "{answer:?}");
}
