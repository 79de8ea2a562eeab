//! What a server says of its load: from its layer, on the wire, to the load of its endpoint.

use std::{convert::Infallible, time::Duration};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_mesh_core::{Classify, Clock, ManualClock, Report};
use tower_mesh_http::{Body, HttpClassify, LOAD_HEADER, ReportLoad, ReportLoadLayer, load_of};

const MS: Duration = Duration::from_millis(1);

type Answer = Response<Body>;

/// A server whose calls take 20 ms each; the path says with which status they end.
fn server() -> (
    ReportLoadLayer,
    ReportLoad<
        impl Service<Request<Body>, Response = Answer, Error = Infallible, Future: Send> + Clone,
    >,
) {
    let (clock, time) = Clock::manual();
    let layer = ReportLoadLayer::new().clock(clock);
    let handler = service_fn(move |request: Request<Body>| handle(time.clone(), request));
    (layer.clone(), layer.layer(handler))
}

async fn handle(time: ManualClock, request: Request<Body>) -> Result<Answer, Infallible> {
    time.advance(20 * MS);
    let status = request.uri().path()[1..].parse().unwrap_or(StatusCode::OK);
    let body = Body::from("two books");
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    Ok(answer)
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a path")
}

#[tokio::test]
async fn a_call_counts_until_its_body_has_ended_and_other_calls_say_so() {
    let (layer, mut server) = server();
    let streaming = server.call(get("/200")).await.unwrap();
    assert_eq!(streaming.headers()[LOAD_HEADER], "rif=0, us=0");
    let other = server.call(get("/200")).await.unwrap();
    assert_eq!(other.headers()[LOAD_HEADER], "rif=1, us=0");
    assert_eq!(layer.meter().report().in_flight(), 2);
    streaming.into_body().collect().await.unwrap();
    drop(other);
    assert_eq!(layer.meter().report().in_flight(), 0);
    let next = server.call(get("/200")).await.unwrap();
    // The first was there for 40 ms, alone when it came.
    assert_eq!(next.headers()[LOAD_HEADER], "rif=0, us=40000");
}

#[tokio::test]
async fn errors_count_as_failures_and_make_no_server_look_fast() {
    let (layer, mut server) = server();
    for path in ["/500", "/503", "/429"] {
        let answer = server.call(get(path)).await.unwrap();
        let said = load_of(answer.headers()).unwrap();
        assert_eq!(said.each(), Duration::ZERO, "{path}");
    }
    assert!(layer.meter().report().failing() > 0.05);
    let _not_found = server
        .call(get("/404"))
        .await
        .unwrap()
        .into_body()
        .collect()
        .await;
    assert_eq!(layer.meter().report().each(), 20 * MS, "its work was done");
}

#[tokio::test]
async fn who_drops_the_future_gives_the_place_back() {
    let layer = ReportLoadLayer::new();
    let never = service_fn(async |_: Request<Body>| {
        std::future::pending::<Result<Answer, Infallible>>().await
    });
    let mut call = tokio_test::task::spawn(layer.layer(never).oneshot(get("/")));
    assert!(call.poll().is_pending());
    assert_eq!(layer.meter().report().in_flight(), 1);
    drop(call);
    assert_eq!(layer.meter().report(), Report::new(0, Duration::ZERO));
}

#[test]
fn the_classifier_tells_what_the_head_says() {
    let heard = |value: &str| {
        let response = Response::builder()
            .header(LOAD_HEADER, value)
            .body(Body::empty());
        HttpClassify::new().report(&response.unwrap())
    };
    assert_eq!(heard("rif=7, us=1000"), Some(Report::new(7, MS)));
    assert_eq!(heard("rif=7, us=NaN"), None);
    let silent = Response::new(Body::empty());
    assert_eq!(HttpClassify::new().report(&silent), None);
}
