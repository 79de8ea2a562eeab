//! Headers: an input is their lines, as `name: value`.

use std::{
    str,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{Empty, Full};
use tower_mesh_core::{Class, Classify, Pushback, Verdict};
use tower_mesh_http::{
    HttpClassify,
    context::{Context, MOST_ATTEMPTS, attempt_of, set_attempt},
    load_of, set_load, set_timeout, timeout_of,
};

/// The headers that `lines` are, as HTTP/1 would have them; what is none is left out.
fn headers(lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let name = halves.next().map(HeaderName::from_bytes);
        let value = halves.next().map(<[u8]>::trim_ascii);
        let value = value.map(HeaderValue::from_bytes);
        if let (Some(Ok(name)), Some(Ok(value))) = (name, value) {
            // The most that a map takes is more than HTTP/1 and HTTP/2 let through.
            let _ = headers.try_append(name, value);
        }
    }
    headers
}

/// `grpc-timeout` and `x-request-timeout-ms`: whatever they say, what is written instead is no more than what is left, nor
/// than what they said.
pub fn deadline(input: &[u8]) {
    let came = headers(input);
    let said = timeout_of(&came);
    for left in [
        Duration::ZERO,
        Duration::from_nanos(1),
        Duration::from_millis(1_500),
        Duration::MAX,
    ] {
        let mut written = came.clone();
        set_timeout(&mut written, left);
        let read = timeout_of(&written)
            .expect("what was written is read")
            .expect("and is there");
        assert!(read <= left, "{read:?} of {left:?}");
        if let Ok(Some(said)) = said {
            assert!(read <= said, "{read:?} where {said:?} was said");
        }
    }
}

/// `traceparent`, `tracestate`, the priority and the number of the attempt: what is read is bounded, and is read again when
/// it is passed on.
pub fn context(input: &[u8]) {
    let came = headers(input);
    let context = Context::of(&came);
    let mut written = HeaderMap::new();
    context.write(&mut written);
    let length: usize = written.values().map(HeaderValue::len).sum();
    assert!(length <= 55 + 512 + 9, "{written:?}");
    assert_eq!(Context::of(&written), context);
    let attempt = attempt_of(&came);
    assert!((1..=MOST_ATTEMPTS).contains(&attempt), "{attempt}");
    let mut written = came;
    set_attempt(&mut written, attempt);
    assert_eq!(attempt_of(&written), attempt);
}

/// `x-mesh-load`: what is read is within its bounds, and is read again when it is passed on.
pub fn load(input: &[u8]) {
    let mut headers = headers(input);
    let Some(report) = load_of(&headers) else {
        return;
    };
    assert!(report.each() <= Duration::from_secs(3_600), "{report:?}");
    assert!((0.0..=1.0).contains(&report.failing()), "{report:?}");
    set_load(&mut headers, report);
    let again = load_of(&headers).expect("what was written is read");
    assert_eq!(again.in_flight(), report.in_flight());
    assert_eq!(again.each(), report.each());
    assert!((again.failing() - report.failing()).abs() < 0.001);
}

/// `grpc-status`, `grpc-retry-pushback-ms` and `Retry-After` in the head of a response, whose first line is its status: no
/// plain one asks for more than five minutes, and a success asks for nothing.
pub fn verdict(input: &[u8]) {
    let line = input.iter().position(|byte| *byte == b'\n');
    let (status, rest) = input.split_at(line.unwrap_or(input.len()));
    let status = str::from_utf8(status)
        .ok()
        .and_then(|text| text.parse().ok());
    let status = status.and_then(|code| StatusCode::from_u16(code).ok());
    let headers = headers(rest);
    // 21 October 2015.
    let classify = HttpClassify::new()
        .wall_clock(|| SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_480));
    let ended = respond(status, &headers, Empty::<&[u8]>::new());
    let streams = respond(status, &headers, Full::new(&b"streams"[..]));
    let ended = classify.classify(Ok(&ended));
    let Verdict::Done(at_end) = ended else {
        panic!("a head without a body leaves nothing to wait for");
    };
    match classify.classify(Ok(&streams)) {
        Verdict::Done(at_head) => assert_eq!(at_head, at_end, "a head says one thing"),
        _ => assert_eq!(at_end.pushback(), Pushback::None),
    }
    if at_end.class() == Class::Success {
        assert_eq!(at_end.pushback(), Pushback::None);
    }
    if !headers.contains_key("grpc-status")
        && let Pushback::After(after) = at_end.pushback()
    {
        assert!(after <= Duration::from_secs(300), "{after:?}");
    }
}

fn respond<B>(status: Option<StatusCode>, headers: &HeaderMap, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = status.unwrap_or_default();
    headers.clone_into(response.headers_mut());
    response
}
