#[cfg(feature = "tower-http")]
mod tower_http;

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

use http::{HeaderMap, Method, Request, StatusCode};
use http_body::Body as _;
use tower::{ServiceExt, load::TrackCompletion, service_fn};
use tower_layer::Layer;
use tower_mesh_core::{BoxError, Class, Finish, Kind, Outcome, Pushback, Refusal, Sent};

use super::*;
use crate::{
    CompleteOnBody,
    script::{Script, Step, grpc_status},
};

/// Keeps the outcome of what it guards.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Option<Outcome>>>);

impl Told {
    fn outcome(&self) -> Option<Outcome> {
        *self.0.lock().unwrap()
    }
}

impl Finish for Told {
    fn finish(&mut self, outcome: Outcome) {
        self.0.lock().unwrap().get_or_insert(outcome);
    }
}

fn request(method: Method, path: &str) -> Request<()> {
    let request = Request::builder().method(method).uri(path);
    request.body(()).unwrap()
}

fn get() -> Request<()> {
    request(Method::GET, "/orders/42")
}

fn response(status: u16, steps: impl IntoIterator<Item = Step>) -> Response<Script> {
    let mut response = Response::new(Script::new(steps).telling_its_end());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

type Answer = Result<Response<Script>, BoxError>;

/// The answer as it comes out of the layer.
fn answered(classify: impl ClassifyCalls, request: Request<()>, answer: Answer) -> Answer {
    let answer = Mutex::new(Some(answer));
    let inner = service_fn(|_: Request<()>| async { answer.lock().unwrap().take().unwrap() });
    tokio_test::block_on(ClassifyLayer::new(classify).layer(inner).oneshot(request))
}

/// What is said at the head, and what in the end of a body that is dropped when it has ended or after so many frames: as a
/// balancer hears it.
fn heard(answer: Answer, frames: usize) -> (Verdict, Option<Outcome>) {
    let head = HttpClassify::new().classify(answer.as_ref().map_err(|error| &**error));
    let Ok(response) = answer else {
        return (head, None);
    };
    let told = Told::default();
    let tracked = CompleteOnBody::new().track_completion(told.clone(), response);
    let mut body = Box::pin(tracked.into_body());
    for _ in 0..frames {
        match tokio_test::block_on(poll_fn(|cx| body.as_mut().poll_frame(cx))) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break,
        }
    }
    drop(body);
    (head, told.outcome())
}

const ALL: usize = usize::MAX;

#[test]
fn a_closure_sees_request_and_status_and_leaves_as_usual_what_it_does_not_answer_for() {
    let lost = |call: &Seen<'_>| {
        let path = call.request.uri.path();
        let lost = call.request.method == Method::GET && path == "/orders/42";
        (lost && call.response?.status == 404).then_some(Outcome::failure())
    };
    let of = |method, path, status| {
        let answer = Ok(response(status, [Step::Data("a")]));
        heard(answered(lost, request(method, path), answer), ALL)
    };
    let (head, _) = of(Method::GET, "/orders/42", 404);
    assert_eq!(head, Outcome::failure().into());
    let usual = (Verdict::Deferred, Some(Outcome::success()));
    assert_eq!(of(Method::POST, "/orders/42", 404), usual);
    assert_eq!(of(Method::GET, "/orders", 404), usual);
    assert_eq!(of(Method::GET, "/orders/42", 200), usual);
    let (head, _) = of(Method::GET, "/orders/42", 503);
    assert_eq!(head, Outcome::overload().into());
}

#[test]
fn a_closure_sees_the_trailers() {
    let damaged = |call: &Seen<'_>| {
        let digest = call.trailers()?.get("x-digest")?;
        (digest == "wrong").then_some(Outcome::failure())
    };
    for (digest, outcome) in [("right", Outcome::success()), ("wrong", Outcome::failure())] {
        let name = http::HeaderName::from_static("x-digest");
        let trailers = HeaderMap::from_iter([(name, digest.parse().unwrap())]);
        let answer = Ok(response(200, [Step::Data("a"), Step::Trailers(trailers)]));
        let heard = heard(answered(damaged, get(), answer), ALL);
        assert_eq!(heard, (Verdict::Deferred, Some(outcome)), "{digest}");
    }
}

#[test]
fn a_closure_sees_a_body_break_and_that_it_is_dropped() {
    let says = |call: &Seen<'_>| match call.end? {
        End::Error(error) => {
            assert!(error.to_string().contains("reset"), "{error}");
            Some(Outcome::overload())
        }
        // Enough was read.
        End::Dropped => Some(Outcome::success()),
        End::Complete(_) => None,
    };
    let usual = |_: &Seen<'_>| None;
    let broken = || Ok(response(200, [Step::Data("a"), Step::Error]));
    let (_, end) = heard(answered(says, get(), broken()), ALL);
    assert_eq!(end, Some(Outcome::overload()));
    let (_, end) = heard(answered(usual, get(), broken()), ALL);
    assert_eq!(end, Some(Outcome::failure()));
    let (_, end) = heard(answered(says, get(), broken()), 1);
    assert_eq!(end, Some(Outcome::success()));
    let (_, end) = heard(answered(usual, get(), broken()), 1);
    assert_eq!(end, None, "a caller who goes away says nothing");
}

#[test]
fn a_closure_sees_the_error_of_a_call_without_a_response_and_the_error_stays_what_it_was() {
    let refused = || Refusal::remote(Kind::Connect, Sent::Never);
    let says = |call: &Seen<'_>| {
        assert_eq!(call.request.method, Method::GET);
        assert!(call.response.is_none());
        let refused = Refusal::of(call.error()?)?;
        (refused.kind() == Kind::Connect).then_some(Outcome::overload().never_sent())
    };
    let error = answered(says, get(), Err(refused().into())).unwrap_err();
    assert_eq!(Refusal::of(&*error), Some(&refused()));
    let (said, _) = heard(Err(error), ALL);
    assert_eq!(said, Outcome::overload().never_sent().into());

    let error = answered(|_: &Seen<'_>| None, get(), Err(refused().into())).unwrap_err();
    assert!(
        error.is::<Refusal>(),
        "as usual, so nothing is put round it"
    );
    let (said, _) = heard(Err(error), ALL);
    assert_eq!(said, refused().outcome().into());
}

#[test]
fn a_refusal_that_was_made_of_a_classified_error_speaks_for_itself() {
    let says = |_: &Seen<'_>| Some(Outcome::success());
    let error = answered(says, get(), Err("boom".into())).unwrap_err();
    let refusal = Refusal::local(Kind::DeadlineExceeded).with_cause(error);
    let (said, _) = heard(Err(refusal.clone().into()), ALL);
    assert_eq!(said, refusal.outcome().into());
}

#[test]
fn a_call_is_asked_once_for_its_end_however_many_wait_for_it() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let says = {
        let asked = Arc::clone(&asked);
        move |call: &Seen<'_>| {
            asked.lock().unwrap().push(call.end.is_some());
            call.end.map(|_| Outcome::failure())
        }
    };
    let answer = answered(says, get(), Ok(response(200, [Step::Data("a")])));
    let (inner, outer) = (Told::default(), Told::default());
    let tracked = CompleteOnBody::new().track_completion(inner.clone(), answer.unwrap());
    // As a mesh over a mesh would have it.
    let (_, end) = {
        let tracked = CompleteOnBody::new().track_completion(outer.clone(), tracked);
        let mut body = Box::pin(tracked.into_body());
        let _ = tokio_test::block_on(poll_fn(|cx| body.as_mut().poll_frame(cx)));
        (inner.outcome(), outer.outcome())
    };
    assert_eq!((inner.outcome(), end), (end, Some(Outcome::failure())));
    assert_eq!(*asked.lock().unwrap(), [false, true]);
}

#[test]
fn what_the_head_decided_holds_to_the_end_and_nobody_is_asked_again() {
    let says = |call: &Seen<'_>| {
        assert!(call.end.is_none());
        Some(Outcome::failure())
    };
    let answer = answered(says, get(), Ok(response(200, [Step::Data("a")])));
    let failed = (Outcome::failure().into(), Some(Outcome::failure()));
    assert_eq!(heard(answer, ALL), failed);
}

#[test]
fn a_closure_that_panics_at_the_end_counts_as_a_failure() {
    let says = |call: &Seen<'_>| call.end.map(|_| -> Outcome { panic!("as the test says") });
    let answer = answered(says, get(), Ok(response(200, [Step::Data("a")])));
    let told = Told::default();
    let tracked = CompleteOnBody::new().track_completion(told.clone(), answer.unwrap());
    let mut body = Box::pin(tracked.into_body());
    let read = || tokio_test::block_on(poll_fn(|cx| body.as_mut().poll_frame(cx)));
    assert!(catch_unwind(AssertUnwindSafe(read)).is_err());
    assert_eq!(
        told.outcome().map(|outcome| outcome.class()),
        Some(Class::Failure)
    );
}

#[test]
fn grpc_stays_grpc_where_a_closure_says_nothing() {
    let usual = |_: &Seen<'_>| None;
    let (head, end) = heard(answered(usual, get(), Ok(grpc("14"))), ALL);
    assert_eq!((head, end), (Verdict::Deferred, Some(Outcome::failure())));
    let (_, end) = heard(answered(usual, get(), Ok(grpc("0"))), ALL);
    assert_eq!(end, Some(Outcome::success()));
}

#[test]
fn a_closure_sees_the_status_of_grpc_in_the_trailers_and_in_a_head_without_a_message() {
    let lost = |call: &Seen<'_>| (call.grpc_status()? == "5").then_some(Outcome::failure());
    let (head, end) = heard(answered(lost, get(), Ok(grpc("5"))), ALL);
    assert_eq!((head, end), (Verdict::Deferred, Some(Outcome::failure())));
    let mut only = grpc("5").map(|_| Script::new([]).telling_its_end());
    only.headers_mut().extend(grpc_status("5"));
    let (head, _) = heard(answered(lost, get(), Ok(only)), ALL);
    assert_eq!(head, Outcome::failure().into());
    let (_, end) = heard(answered(lost, get(), Ok(grpc("0"))), ALL);
    assert_eq!(end, Some(Outcome::success()));
}

/// Says `code` in its trailers.
fn grpc(code: &'static str) -> Response<Script> {
    let trailers = Step::Trailers(grpc_status(code));
    let mut response = response(200, [Step::Data("a"), trailers]);
    let grpc = "application/grpc".parse().unwrap();
    response.headers_mut().insert("content-type", grpc);
    response
}
