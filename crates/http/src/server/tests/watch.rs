//! `grpc.health.v1.Health/Watch`.

use http_body::Frame;
use std::pin::Pin;

use super::*;

fn watch(name: &str) -> Request<Body> {
    let mut message = vec![0x0a, name.len() as u8];
    message.extend_from_slice(name.as_bytes());
    let mut body = vec![0, 0, 0, 0, message.len() as u8];
    body.append(&mut message);
    asked(body)
}

fn asked(body: Vec<u8>) -> Request<Body> {
    let mut request = request("/grpc.health.v1.Health/Watch", &[GRPC]);
    *request.body_mut() = Body::from(body);
    request
}

/// A layer whose reasons can be set, as words with spaces between.
fn unready() -> (
    ServerLayer,
    ManualClock,
    Arc<std::sync::Mutex<&'static str>>,
) {
    let (layer, hand) = layer();
    let reasons = Arc::new(std::sync::Mutex::new(""));
    let seen = Arc::clone(&reasons);
    let layer = layer.ready_unless(move || seen.lock().unwrap().split_whitespace().collect());
    (layer, hand, reasons)
}

fn begin(layer: &ServerLayer, request: Request<Body>) -> Answer {
    let Ok(response) = tokio_test::block_on(layer.layer(untouched()).oneshot(request));
    response
}

/// The next status, or nothing yet.
fn status(body: &mut task::Spawn<ServerBody<Body>>) -> Option<u8> {
    let frame = body.enter(|cx, body: Pin<&mut ServerBody<Body>>| body.poll_frame(cx));
    let std::task::Poll::Ready(Some(Ok(frame))) = frame else {
        assert!(frame.is_pending());
        return None;
    };
    let data = Frame::into_data(frame).expect("a message");
    assert_eq!(data[..6], [0, 0, 0, 0, 2, 8]);
    Some(data[6])
}

const TICK: Duration = Duration::from_millis(500);

#[test]
fn each_change_is_said_once_until_the_process_is_on_its_way_out() {
    let (layer, hand, reasons) = unready();
    let answer = begin(&layer, watch(""));
    assert!(!answer.headers().contains_key("grpc-status"));
    let mut body = task::spawn(answer.into_body());
    assert_eq!((status(&mut body), status(&mut body)), (Some(1), None));
    for (reason, said) in [("component", Some(2)), ("component", None), ("", Some(1))] {
        *reasons.lock().unwrap() = reason;
        assert!(!body.is_woken());
        hand.advance(TICK);
        assert!(body.is_woken());
        assert_eq!(status(&mut body), said, "{reason}");
        assert_eq!(status(&mut body), None);
    }
    *reasons.lock().unwrap() = "draining component";
    hand.advance(TICK);
    assert_eq!(status(&mut body), Some(2));
    let end = body.enter(|cx, body: Pin<&mut ServerBody<Body>>| body.poll_frame(cx));
    let std::task::Poll::Ready(Some(Ok(end))) = end else {
        panic!("it has not ended: {end:?}");
    };
    assert_eq!(end.trailers_ref().unwrap()["grpc-status"], "14");
    assert!(body.is_end_stream());
    assert_eq!(hand.timers(), 0);
    assert_eq!(layer.counts(), ServerCounts::default(), "not counted");
}

#[test]
fn of_a_service_that_is_not_there_it_says_so_and_goes_on() {
    let (layer, hand, reasons) = unready();
    let layer = layer.grpc_services(["shop.Orders"]);
    for (name, said) in [("", 1), ("shop.Orders", 1), ("shop.Carts", 3)] {
        let mut body = task::spawn(begin(&layer, watch(name)).into_body());
        assert_eq!((status(&mut body), status(&mut body)), (Some(said), None));
    }
    let mut body = task::spawn(begin(&layer, watch("shop.Carts")).into_body());
    assert_eq!(status(&mut body), Some(3));
    *reasons.lock().unwrap() = "draining";
    hand.advance(TICK);
    let end = body.enter(|cx, body: Pin<&mut ServerBody<Body>>| body.poll_frame(cx));
    assert!(end.is_ready(), "it ends with the process all the same");
}

#[test]
fn a_question_that_nobody_can_read_is_refused() {
    let (layer, _hand, _) = unready();
    for junk in [
        vec![],
        vec![1, 0, 0, 0, 0],
        vec![0, 0, 0, 0, 9, 0x0a],
        vec![0, 0, 0, 0, 2, 0x0a, 200],
        vec![0, 0, 0, 0, 3, 0x0a, 1, 0xff],
        vec![0; 100_000],
    ] {
        let answer = begin(&layer, asked(junk));
        assert_eq!(answer.headers()["grpc-status"], "3");
        assert!(answer.body().is_end_stream());
    }
}

#[test]
fn one_who_goes_away_leaves_nothing_behind() {
    let (layer, hand, _) = unready();
    let mut body = task::spawn(begin(&layer, watch("")).into_body());
    assert_eq!((status(&mut body), status(&mut body)), (Some(1), None));
    assert_eq!(hand.timers(), 1);
    drop(body);
    assert_eq!(hand.timers(), 0);
}
