//! Every test that `tests/FLAWS.md` names exists; and the flaw that needs the parts of two crates to be shown.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, StreamBody};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_mesh::{
    Body, MeshService,
    core::{Ratio, Replay},
    http::{HttpClassify, HttpReplay},
    retry::{Budget, RetryLayer},
};

const TABLE: &str = include_str!("../FLAWS.md");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The rows of the table: the flaw, and the files and names of its tests.
fn rows(table: &str) -> impl Iterator<Item = (&str, Vec<(&str, &str)>)> {
    table.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
        let [flaw, _, _, tests] = cells[..] else {
            return None;
        };
        let tests = tests
            .trim_end_matches(['|', ' '])
            .split("<br>")
            .filter_map(|test| {
                let mut parts = test.split('`').filter(|part| !part.trim().is_empty());
                Some((parts.next()?, parts.next().unwrap_or_default()))
            });
        flaw.ends_with(|c: char| c.is_ascii_digit())
            .then(|| (flaw, tests.collect()))
    })
}

/// The tests of the table that do not exist.
fn missing(table: &str) -> Vec<String> {
    let mut missing = Vec::new();
    for (flaw, tests) in rows(table) {
        if tests.is_empty() {
            missing.push(format!("{flaw}: no test"));
        }
        for (file, name) in tests {
            let text = fs::read_to_string(format!("{ROOT}/{file}")).unwrap_or_default();
            if name.is_empty() || !text.contains(&format!("fn {name}(")) {
                missing.push(format!("{flaw}: {name} in {file}"));
            }
        }
    }
    missing
}

#[test]
fn every_flaw_of_the_table_has_its_test() {
    assert!(rows(TABLE).count() >= 40, "the table was not understood");
    assert_eq!(missing(TABLE), Vec::<String>::new());
}

#[test]
fn a_test_that_does_not_exist_would_be_found() {
    let table =
        "| X1 | peer | wrong | `tests/mesh/flaws.rs` `no_such_test` |\n| X2 | peer | wrong |  |\n";
    assert_eq!(
        missing(table),
        ["X1: no_such_test in tests/mesh/flaws.rs", "X2: no test"]
    );
}

/// What has arrived at a service, body by body. It is overloaded, and says so to everybody.
#[derive(Clone, Default)]
struct Overloaded(Arc<Mutex<Vec<Bytes>>>);

impl Overloaded {
    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let body = request.into_body().collect().await?.to_bytes();
        self.0.lock().unwrap().push(body);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        Ok(response)
    }

    fn service(
        &self,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send>
    + Clone
    + use<> {
        let this = self.clone();
        service_fn(move |request| this.clone().answer(request))
    }
}

/// Retries as reqwest-retry does: it sends clones, and what cannot be cloned, a stream, not at all; 5xx it retries
/// whatever the method.
async fn clones_or_nothing<S>(
    service: S,
    mut request: Request<Body>,
) -> Result<S::Response, BoxError>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone,
{
    if request.body().size_hint().exact().is_none() {
        return Err("request object is not cloneable".into());
    }
    let replay = HttpReplay::new();
    let kept = replay.keep(&mut request).ok_or("it is too long")?;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let clone = replay.again(&kept).ok_or("it was cloneable")?;
        let response = service.clone().oneshot(clone).await?;
        if !response.status().is_server_error() || attempts == 3 {
            return Ok(response);
        }
    }
}

/// The bodies that arrive of one call of ours, and of one of the peer's.
async fn arrived(request: impl Fn() -> Request<Body>) -> [Vec<Bytes>; 2] {
    let [at_ours, at_theirs] = [Overloaded::default(), Overloaded::default()];
    let generous = Budget::new(Ratio::ONE).min_per_second(1_000);
    let ours = RetryLayer::new(generous)
        .replay(HttpReplay::new())
        .classify(HttpClassify::new())
        .layer(at_ours.service());
    let _ = ours.oneshot(request()).await;
    let _ = clones_or_nothing(at_theirs.service(), request()).await;
    [at_ours, at_theirs].map(|at| std::mem::take(&mut *at.0.lock().unwrap()))
}

fn request(method: Method, body: Body) -> Request<Body> {
    let request = Request::builder().method(method).uri("/orders");
    request.body(body).unwrap()
}

fn put_of(frames: [Bytes; 2]) -> Request<Body> {
    let frames = frames.map(|data| Ok::<_, BoxError>(http_body::Frame::data(data)));
    let body = StreamBody::new(futures_util::stream::iter(frames));
    request(Method::PUT, Body::new(body))
}

#[tokio::test(start_paused = true)]
async fn q1_what_cannot_be_cloned_is_sent_once() {
    // More than is kept of a stream.
    let long = || put_of([vec![b'x'; 65_536].into(), "y".into()]);
    let [ours, theirs] = arrived(long).await;
    assert_eq!(ours.iter().map(Bytes::len).collect::<Vec<_>>(), [65_537]);
    assert_eq!(theirs, [""; 0], "refused");

    // What is kept of it is sent again, though it cannot be cloned.
    let [ours, theirs] = arrived(|| put_of(["a".into(), "b".into()])).await;
    assert_eq!(ours, ["ab"; 3]);
    assert_eq!(theirs, [""; 0], "refused");
}

#[tokio::test(start_paused = true)]
async fn q1_a_post_that_may_have_arrived_is_not_sent_again() {
    let [ours, theirs] = arrived(|| request(Method::POST, "x".into())).await;
    assert_eq!(ours, ["x"]);
    assert_eq!(theirs, ["x"; 3]);

    // What is idempotent both send again.
    let [ours, theirs] = arrived(|| request(Method::PUT, "x".into())).await;
    assert_eq!((ours.len(), theirs.len()), (3, 3));
}

/// What does not compile for tower's balancer: `crates/balance/tests/balance/spawned.rs` says why.
#[test]
fn w14_a_call_of_the_whole_mesh_can_be_spawned_from_within_another_future() {
    fn spawns<A, F: Future + Send + 'static>(_: impl FnOnce(A) -> F) {}

    spawns(|service: MeshService| async move {
        let answer = service.oneshot(request(Method::GET, Body::empty())).await;
        answer.is_ok()
    });
}
