//! What gRPC says of a call beside its HTTP status: `grpc-status` and `grpc-retry-pushback-ms`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use tower_mesh_core::{Outcome, Pushback};

use crate::retry_after::digits;

pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Whether this is the head of a gRPC response: `application/grpc`, also with a codec (`+proto`).
///
/// grpc-web is none: it carries its trailers in the body.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// What `grpc-status` in the head or in the trailers says, if it is there.
pub(crate) fn outcome(fields: &HeaderMap) -> Option<Outcome> {
    let outcome = of_status(fields.get(STATUS)?);
    Some(if outcome.is_failure() {
        outcome.with_pushback(pushback(fields.get(PUSHBACK)))
    } else {
        outcome
    })
}

/// The call ended and no status came: clients report it as an error, so it is one.
pub(crate) const NO_STATUS: Outcome = Outcome::failure();

/// Failures are the codes with which a server or the way to it says that it failed, as linkerd counts them, and UNKNOWN,
/// which is what servers make of a panic or an exception. The others speak of the request, as 4xx do in HTTP:
/// linkerd's PERMISSION_DENIED too, or one caller without rights would open the breaker for all.
pub(crate) fn of_status(status: &HeaderValue) -> Outcome {
    match status.as_bytes() {
        // CANCELLED: whoever the server works for went away.
        b"1" => Outcome::neutral(),
        // INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE,
        // UNIMPLEMENTED, UNAUTHENTICATED
        b"0" | b"3" | b"5" | b"6" | b"7" | b"9" | b"10" | b"11" | b"12" | b"16" => {
            Outcome::success()
        }
        // RESOURCE_EXHAUSTED
        b"8" => Outcome::overload(),
        // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS; a code nobody knows is read as UNKNOWN.
        _ => Outcome::failure(),
    }
}

/// gRFC A6: wait exactly so long; what is negative or no number means do not try again.
fn pushback(value: Option<&HeaderValue>) -> Pushback {
    let Some(value) = value else {
        return Pushback::None;
    };
    match value.to_str().ok().and_then(digits) {
        Some(millis) => Pushback::After(Duration::from_millis(millis)),
        None => Pushback::Stop,
    }
}

#[cfg(test)]
mod tests {
    use tower_mesh_core::Class;

    use super::*;

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            })
            .collect()
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (content_type, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grpcx", false),
            ("application/json", false),
        ] {
            let headers = fields(&[("content-type", content_type)]);
            assert_eq!(is_grpc(&headers), grpc, "{content_type}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn each_code_speaks_for_or_against_the_endpoint_as_documented() {
        use Class::{Failure, Neutral, Overload, Success};
        for (code, class) in [
            ("0", Success),
            ("1", Neutral),
            ("2", Failure),
            ("3", Success),
            ("4", Failure),
            ("5", Success),
            ("6", Success),
            ("7", Success),
            ("8", Overload),
            ("9", Success),
            ("10", Success),
            ("11", Success),
            ("12", Success),
            ("13", Failure),
            ("14", Failure),
            ("15", Failure),
            ("16", Success),
            ("17", Failure),
            ("", Failure),
            ("00", Failure),
            ("OK", Failure),
        ] {
            let outcome = outcome(&fields(&[("grpc-status", code)])).unwrap();
            assert_eq!(outcome.class(), class, "{code}");
        }
        assert_eq!(outcome(&HeaderMap::new()), None);
    }

    // scenario 7
    #[test]
    fn pushback_is_exact_and_junk_means_stop() {
        for (value, pushback) in [
            ("200", Pushback::After(Duration::from_millis(200))),
            ("0", Pushback::After(Duration::ZERO)),
            ("900000", Pushback::After(Duration::from_secs(900))),
            ("-1", Pushback::Stop),
            ("x", Pushback::Stop),
            ("", Pushback::Stop),
            ("1.5", Pushback::Stop),
        ] {
            let fields = fields(&[("grpc-status", "14"), ("grpc-retry-pushback-ms", value)]);
            assert_eq!(outcome(&fields).unwrap().pushback(), pushback, "{value}");
        }
        let without = fields(&[("grpc-status", "14")]);
        assert_eq!(outcome(&without).unwrap().pushback(), Pushback::None);
        let success = fields(&[("grpc-status", "0"), ("grpc-retry-pushback-ms", "200")]);
        assert_eq!(outcome(&success).unwrap().pushback(), Pushback::None);
    }
}
