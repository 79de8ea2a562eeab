//! Which attempt of its call a request is.

use std::io::Write;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::only;
use crate::grpc::is_grpc;

/// Which attempt of its call a request is that is not gRPC: 2 for the first retry. A first attempt has none.
pub const ATTEMPT_HEADER: HeaderName = HeaderName::from_static("x-mesh-attempt");

/// gRPC's own (gRFC A6): how many attempts came before.
const GRPC_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// Who claims more has as many.
pub const MOST_ATTEMPTS: u32 = 100;

/// Which attempt of its call a request is, from 1 to [`MOST_ATTEMPTS`]; 1 if it does not say so, or not in one to nine
/// digits.
pub fn attempt_of(headers: &HeaderMap) -> u32 {
    let before = if is_grpc(headers) {
        number(headers, &GRPC_ATTEMPTS)
    } else {
        number(headers, &ATTEMPT_HEADER).and_then(|attempt| attempt.checked_sub(1))
    };
    before.unwrap_or(0).min(MOST_ATTEMPTS - 1) + 1
}

/// Says in `headers` that this is the `attempt`th attempt, instead of what they say already. Of a first one they say
/// nothing.
pub fn set_attempt(headers: &mut HeaderMap, attempt: u32) {
    let grpc = is_grpc(headers);
    let (name, number) = match grpc {
        true => (GRPC_ATTEMPTS, attempt.saturating_sub(1)),
        false => (ATTEMPT_HEADER, attempt),
    };
    if attempt <= 1 {
        headers.remove(name);
        return;
    }
    let mut text = [0; 3];
    let mut rest = &mut text[..];
    write!(rest, "{}", number.min(MOST_ATTEMPTS)).expect("at most 100");
    let length = 3 - rest.len();
    let value = HeaderValue::from_bytes(&text[..length]).expect("digits are a value");
    headers.insert(name, value);
}

/// One to nine digits and nothing else.
fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u32> {
    let digits = only(headers, name)?.as_bytes();
    if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = digits.iter();
    Some(digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}
