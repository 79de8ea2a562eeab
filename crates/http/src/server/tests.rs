use std::{
    convert::Infallible,
    fmt,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_mesh_core::{
    BoxError, Clock, Kind, ManualClock, MemoryRecorder, Priority, Refusal, Rng, frame,
};

use super::*;
use crate::{Body, context::set_context};

mod authorize;
mod logs;
mod watch;

type Answer = Response<ServerBody<Body>>;

fn request(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

fn layer() -> (ServerLayer, ManualClock) {
    let (clock, hand) = Clock::manual();
    (ServerLayer::new().clock(clock).rng(Rng::seeded(7)), hand)
}

/// What `server` answers at once.
fn ask<S>(server: S, request: Request<Body>) -> (http::response::Parts, Option<HeaderMap>, String)
where
    S: Service<Request<Body>, Response = Answer, Error = Infallible>,
{
    let Ok(response) = tokio_test::block_on(server.oneshot(request));
    let (head, body) = response.into_parts();
    let body = tokio_test::block_on(body.collect()).unwrap();
    let trailers = body.trailers().cloned();
    let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    (head, trailers, text)
}

/// A handler that must not be called.
fn untouched()
-> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone
{
    service_fn(
        async |_: Request<Body>| -> Result<Response<Body>, Infallible> {
            unreachable!("the handler was called")
        },
    )
}

fn failing(
    error: impl Fn() -> BoxError + Clone,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone {
    service_fn(move |_: Request<Body>| std::future::ready(Err(error())))
}

// row 33
#[test]
fn a_deadline_that_has_passed_or_that_nobody_can_read_is_refused_before_the_handler() {
    for (headers, http, kind, grpc) in [
        (
            ("x-request-timeout-ms", "0"),
            504,
            "deadline_exceeded",
            ("0m", "4"),
        ),
        (
            ("x-request-timeout-ms", "-1"),
            400,
            "invalid_timeout",
            ("-1m", "3"),
        ),
        (
            ("x-request-timeout-ms", "1000000000000000000"),
            400,
            "invalid_timeout",
            ("1000000000000000000m", "3"),
        ),
        (
            ("x-request-timeout-ms", "soon"),
            400,
            "invalid_timeout",
            ("soon", "3"),
        ),
    ] {
        let (layer, _) = layer();
        let (head, _, text) = ask(layer.layer(untouched()), request("/", &[headers]));
        assert_eq!(head.status, http, "{headers:?}");
        assert_eq!(head.headers[CONTENT_TYPE], "application/problem+json");
        assert!(
            text.contains(&format!(r#""status":{http},"kind":"{kind}""#)),
            "{text}"
        );
        let (timeout, status) = grpc;
        let grpc = request("/a.B/C", &[GRPC, ("grpc-timeout", timeout)]);
        let (head, trailers, text) = ask(layer.layer(untouched()), grpc);
        assert_eq!(
            (head.status, text.as_str()),
            (StatusCode::OK, ""),
            "trailers only"
        );
        assert_eq!(head.headers["grpc-status"], status);
        assert!(
            head.headers["grpc-message"]
                .to_str()
                .unwrap()
                .starts_with(kind)
        );
        assert_eq!(trailers, None);
        let counts = layer.counts();
        assert_eq!(
            (counts.requests, counts.refused, counts.in_flight),
            (2, 2, 0)
        );
    }
}

#[test]
fn the_handler_has_what_the_sender_or_the_layer_gives_it_whichever_is_less() {
    let ms = Duration::from_millis;
    for (sent, own, left) in [
        (None, None, None),
        (Some("250"), None, Some(ms(250))),
        (Some("250"), Some(ms(100)), Some(ms(100))),
        (Some("99999999"), Some(ms(100)), Some(ms(100))),
        (None, Some(ms(100)), Some(ms(100))),
    ] {
        let (layer, hand) = layer();
        let layer = own.map_or(layer.clone(), |own| layer.timeout(own));
        let dropped = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&dropped);
        let server = layer.layer(service_fn(move |_: Request<Body>| {
            let on_drop = OnDrop(Arc::clone(&seen));
            async move {
                assert_eq!(Inherited::left_here(), left);
                let _on_drop = on_drop;
                pending::<Result<Response<Body>, Infallible>>().await
            }
        }));
        let sent: Vec<_> = sent
            .map(|sent| ("x-request-timeout-ms", sent))
            .into_iter()
            .collect();
        let mut answer = task::spawn(server.oneshot(request("/", &sent)));
        assert_pending!(answer.poll());
        assert_eq!(layer.counts().in_flight, 1);
        let Some(left) = left else {
            assert_eq!(hand.timers(), 0);
            continue;
        };
        hand.advance(left - Duration::from_nanos(1));
        assert_pending!(answer.poll());
        assert!(!dropped.load(Ordering::Relaxed));
        hand.advance(Duration::from_nanos(1));
        assert!(answer.is_woken());
        let response = assert_ready_ok!(answer.poll());
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        assert!(
            dropped.load(Ordering::Relaxed),
            "the handler is not left running"
        );
        let counts = layer.counts();
        assert_eq!((counts.failed, counts.in_flight, hand.timers()), (1, 0, 0));
    }
}

struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_limit_beneath_hears_of_the_servers_own_time_limit_and_not_of_its_senders_deadlines() {
    struct Heard(Arc<AtomicBool>);

    impl Drop for Heard {
        fn drop(&mut self) {
            self.0.store(frame::is_timing_out(), Ordering::Relaxed);
        }
    }

    for (sent, own) in [("100", false), ("101", true)] {
        let (layer, hand) = layer();
        let heard = Arc::new(AtomicBool::new(false));
        let guard = Arc::clone(&heard);
        let server = layer
            .timeout(Duration::from_nanos(100_500_000))
            .layer(service_fn(move |_: Request<Body>| {
                let guard = Heard(Arc::clone(&guard));
                async move {
                    let _guard = guard;
                    pending::<Result<Response<Body>, Infallible>>().await
                }
            }));
        let mut answer =
            task::spawn(server.oneshot(request("/", &[("x-request-timeout-ms", sent)])));
        assert_pending!(answer.poll());
        hand.advance(Duration::from_millis(101));
        assert_ready_ok!(answer.poll());
        assert_eq!(heard.load(Ordering::Relaxed), own, "{sent}");
    }
}

#[test]
fn a_handler_that_answers_at_once_needs_no_timer() {
    let (layer, hand) = layer();
    let handler = service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new(Body::from("hello")))
    });
    let (head, _, text) = ask(
        layer.layer(handler),
        request("/", &[("x-request-timeout-ms", "5")]),
    );
    assert_eq!((head.status, text.as_str()), (StatusCode::OK, "hello"));
    assert_eq!((hand.timers_registered(), hand.reads()), (0, 2));
}

/// An error that knows too much.
#[derive(Debug)]
struct Secret(Option<Refusal>);

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SECRET at 10.0.0.7:5432")
    }
}

impl std::error::Error for Secret {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.as_ref().map(|refusal| refusal as _)
    }
}

#[test]
fn a_caller_is_told_the_kind_an_id_and_when_to_come_back_and_nothing_of_the_inside() {
    for (kind, http, grpc) in [
        (None, 500, "13"),
        (Some(Kind::Overloaded), 503, "8"),
        (Some(Kind::DeadlineExceeded), 504, "4"),
        (Some(Kind::CircuitOpen), 503, "14"),
        (Some(Kind::NoEndpoint), 503, "14"),
        (Some(Kind::ServiceNotFound), 503, "14"),
        (Some(Kind::ShuttingDown), 503, "14"),
        (Some(Kind::AttemptsExhausted), 502, "14"),
        (Some(Kind::Connect), 502, "14"),
        (Some(Kind::Transport), 502, "14"),
    ] {
        let after = Duration::from_millis(1500);
        let error = move || -> BoxError {
            let refusal = |kind| {
                Refusal::local(kind)
                    .with_context("SECRET 10.0.0.7")
                    .with_retry_after(Some(after))
            };
            Secret(kind.map(refusal)).into()
        };
        let word = kind.map_or("internal", Kind::as_str);
        let (layer, _) = layer();
        let (head, _, text) = ask(layer.layer(failing(error)), request("/", &[]));
        assert_eq!(head.status, http);
        let title = head.status.canonical_reason().unwrap();
        let id = "63cbe1e459320dd7";
        let problem = format!(
            r#"{{"type":"about:blank","title":"{title}","status":{http},"kind":"{word}","id":"{id}"}}"#
        );
        assert_eq!(text, problem);
        let retry_after = kind.map(|_| "2".parse().unwrap());
        assert_eq!(
            head.headers.get("retry-after"),
            retry_after.as_ref(),
            "rounded up"
        );
        let tried = kind == Some(Kind::AttemptsExhausted);
        let said = head
            .headers
            .get("x-mesh-retry")
            .map(|said| said.to_str().unwrap());
        assert_eq!(said, tried.then_some("no"), "{word}");
        let (layer, _) = self::layer();
        let (head, _, text) = ask(layer.layer(failing(error)), request("/a.B/C", &[GRPC]));
        assert_eq!((head.status.as_u16(), text.as_str()), (200, ""));
        assert_eq!(head.headers["grpc-status"], grpc);
        assert_eq!(head.headers["grpc-message"], format!("{word} (id {id})"));
        let pushback = kind.map(|_| if tried { "-1" } else { "1500" }.parse().unwrap());
        assert_eq!(
            head.headers.get("grpc-retry-pushback-ms"),
            pushback.as_ref()
        );
        for value in head.headers.values() {
            assert!(!value.to_str().unwrap().contains("SECRET"));
        }
    }
}

// row 37
#[test]
fn a_handler_that_panics_is_a_500_and_leaves_nothing_behind() {
    for grpc in [false, true] {
        let (layer, _) = layer();
        let server = layer.layer(service_fn(async |request: Request<Body>| {
            assert!(request.uri().path() != "/boom", "SECRET");
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }));
        let headers: &[_] = if grpc { &[GRPC] } else { &[] };
        let (head, _, text) = ask(server.clone(), request("/boom", headers));
        if grpc {
            assert_eq!(head.headers["grpc-status"], "13");
        } else {
            assert_eq!(head.status, StatusCode::INTERNAL_SERVER_ERROR);
            assert!(
                text.contains(r#""kind":"internal""#) && !text.contains("SECRET"),
                "{text}"
            );
        }
        assert_eq!(ask(server, request("/", headers)).0.status, StatusCode::OK);
        let counts = layer.counts();
        assert_eq!(
            (
                counts.failed,
                counts.panicked,
                counts.answered,
                counts.in_flight
            ),
            (1, 1, 1, 0)
        );
        assert_eq!(Inherited::left_here(), None);
    }
}

#[test]
fn a_request_is_in_flight_to_the_end_of_its_body_and_abandoned_if_its_sender_goes() {
    let (layer, _) = layer();
    let handler = service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new(Body::from("hello")))
    });
    let response = tokio_test::block_on(layer.layer(handler).oneshot(request("/", &[]))).unwrap();
    assert_eq!((layer.counts().in_flight, layer.counts().answered), (1, 1));
    drop(response);
    assert_eq!(layer.counts().in_flight, 0);

    let never = service_fn(|_: Request<Body>| pending::<Result<Response<Body>, Infallible>>());
    let mut answer = task::spawn(layer.layer(never).oneshot(request("/", &[])));
    assert_pending!(answer.poll());
    drop(answer);
    let counts = layer.counts();
    assert_eq!(
        (counts.abandoned, counts.in_flight, counts.requests),
        (1, 0, 2)
    );
}

#[test]
fn what_is_counted_is_recorded_by_a_closed_set_of_labels() {
    let recorder = MemoryRecorder::new();
    let layer = ServerLayer::new()
        .clock(Clock::manual().0)
        .recorder(&recorder);
    ask(
        layer.layer(failing(|| "no".into())),
        request("/users/42", &[]),
    );
    ask(
        layer.layer(untouched()),
        request("/", &[("x-request-timeout-ms", "0")]),
    );
    let snapshot = recorder.snapshot();
    for (outcome, count) in [
        ("failed", 1),
        ("refused", 1),
        ("answered", 0),
        ("abandoned", 0),
    ] {
        let labels = [("outcome", outcome)];
        assert_eq!(
            snapshot.counter("tower_mesh_server_requests_total", &labels),
            count
        );
    }
}

#[test]
fn health_is_answered_before_anything_else_is_asked() {
    let draining = Arc::new(AtomicBool::new(false));
    let (layer, _) = layer();
    let seen = Arc::clone(&draining);
    let layer = layer.ready_unless(move || match seen.load(Ordering::Relaxed) {
        true => vec!["draining", "component"],
        false => Vec::new(),
    });
    let expired = ("x-request-timeout-ms", "0");
    let health = |path: &str| {
        let (head, _, text) = ask(layer.layer(untouched()), request(path, &[expired]));
        assert_eq!(head.headers["cache-control"], "no-store");
        (head.status.as_u16(), text)
    };
    assert_eq!(health("/health/live"), (200, r#"{"live":true}"#.into()));
    assert_eq!(
        health("/health/ready?full"),
        (200, r#"{"ready":true}"#.into())
    );
    draining.store(true, Ordering::Relaxed);
    assert_eq!(health("/health/live").0, 200);
    let reasons = r#"{"ready":false,"reasons":["draining","component"]}"#;
    assert_eq!(health("/health/ready"), (503, reasons.into()));
    assert_eq!(layer.counts(), ServerCounts::default(), "not counted");
}

#[test]
fn grpc_health_waits_for_the_question_and_answers_for_the_process() {
    let ready = Arc::new(AtomicBool::new(true));
    let (layer, _) = layer();
    let seen = Arc::clone(&ready);
    let layer = layer.ready_unless(move || match seen.load(Ordering::Relaxed) {
        true => Vec::new(),
        false => vec!["draining"],
    });
    for (serving, status) in [(true, 1), (false, 2)] {
        ready.store(serving, Ordering::Relaxed);
        let question =
            request("/grpc.health.v1.Health/Check", &[GRPC]).map(|_| Body::from("\0\0\0\0\0"));
        let (head, trailers, text) = ask(layer.layer(untouched()), question);
        assert_eq!(head.headers[CONTENT_TYPE], "application/grpc");
        assert_eq!(text.as_bytes(), [0, 0, 0, 0, 2, 8, status]);
        assert_eq!(trailers.unwrap()["grpc-status"], "0");
    }
    let named = layer.clone().grpc_services(["shop.Orders"]);
    for (question, code) in [("\0\0\0\0\x04\n\x02ab", "5"), ("\0\0\0\0\x04\n\x7fab", "3")] {
        let question =
            request("/grpc.health.v1.Health/Check", &[GRPC]).map(|_| Body::from(question));
        let (head, ..) = ask(named.layer(untouched()), question);
        assert_eq!(head.headers["grpc-status"], code);
    }

    let polls = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&polls);
    let endless =
        http_body_util::StreamBody::new(tokio_stream::iter(std::iter::repeat_with(move || {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(http_body::Frame::data(bytes::Bytes::from_static(&[0; 100])))
        })));
    let question = request("/grpc.health.v1.Health/Check", &[GRPC]).map(|_| Body::new(endless));
    ask(layer.layer(untouched()), question);
    assert!(
        polls.load(Ordering::Relaxed) <= 12,
        "what is longer is no question"
    );
}

#[test]
fn what_only_looks_like_a_health_check_is_the_handlers() {
    let seen =
        service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::from("seen"))));
    let (layer, _) = layer();
    for path in [
        "/health",
        "/health/live/",
        "/health/ready.json",
        "/health//live",
        "/grpc.health.v1.Health/Check",
    ] {
        assert_eq!(
            ask(layer.layer(seen), request(path, &[])).2,
            "seen",
            "{path}"
        );
    }
    let mut post = request("/health/live", &[]);
    *post.method_mut() = http::Method::POST;
    assert_eq!(ask(layer.layer(seen), post).2, "seen");
    let without = layer.without_health();
    assert_eq!(
        ask(without.layer(seen), request("/health/live", &[])).2,
        "seen"
    );
}

#[test]
fn an_error_of_a_limit_beneath_is_a_refusal_and_no_failure() {
    let (layer, _) = layer();
    let full = || Refusal::local(Kind::Overloaded).into();
    let (head, ..) = ask(layer.layer(failing(full)), request("/", &[]));
    assert_eq!(head.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((layer.counts().refused, layer.counts().failed), (1, 0));
}

#[test]
fn a_body_of_ours_has_exact_hints_before_and_after_it_is_read() {
    let (layer, _) = layer();
    let response = tokio_test::block_on(
        layer
            .layer(untouched())
            .oneshot(request("/health/live", &[])),
    )
    .unwrap();
    let mut body = response.into_body();
    assert_eq!(
        (body.size_hint().exact(), body.is_end_stream()),
        (Some(13), false)
    );
    assert!(tokio_test::block_on(body.frame()).unwrap().is_ok());
    assert_eq!(
        (body.size_hint().exact(), body.is_end_stream()),
        (Some(0), true)
    );
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

// row 33
#[test]
fn a_handler_inherits_the_trace_and_the_priority_as_far_as_it_is_believed() {
    for (believed, claimed, holds) in [
        (None, "critical", Some("default")),
        (None, "sheddable", Some("sheddable")),
        (Some(Priority::Critical), "critical", Some("critical")),
        (Some(Priority::Sheddable), "default", Some("sheddable")),
        (Some(Priority::Critical), "CRITICAL", None),
    ] {
        let (layer, _) = layer();
        let layer = believed.map_or(layer.clone(), |most| layer.believe_priority(most));
        let server = layer.layer(service_fn(async |request: Request<Body>| {
            let seen = request.headers().get("x-mesh-priority").cloned();
            let mut sent = HeaderMap::new();
            set_context(&mut sent);
            let mut response = Response::new(Body::empty());
            *response.headers_mut() = sent;
            if let Some(seen) = seen {
                response.headers_mut().insert("seen", seen);
            }
            Ok::<_, Infallible>(response)
        }));
        let headers = [("traceparent", PARENT), ("x-mesh-priority", claimed)];
        let (head, _, _) = ask(server, request("/", &headers));
        assert_eq!(head.headers["traceparent"], PARENT);
        let said = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(said("x-mesh-priority"), holds, "{claimed}");
        assert_eq!(said("seen"), holds, "{claimed}");
    }
}
