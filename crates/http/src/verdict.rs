//! What the head and the end of a response say of the endpoint.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode};
use tower_mesh_core::{Outcome, Pushback, Verdict};

use crate::{
    context::{NO_RETRY, RETRY_HEADER},
    grpc,
    retry_after::retry_after,
};

/// What the head says; `ended` is whether nothing follows it.
pub(crate) fn at_head(
    status: StatusCode,
    headers: &HeaderMap,
    ended: bool,
    now: fn() -> SystemTime,
) -> Verdict {
    let ending = Ending::of(status, headers);
    if let Ending::Told(outcome) = ending {
        return outcome.into();
    }
    if is_error(status) {
        return of_error(status, headers, now).into();
    }
    if ended {
        ending.at_end(None).into()
    } else {
        Verdict::Deferred
    }
}

/// RFC 9110, 15: a status above 599 is taken for one of 5xx.
fn is_error(status: StatusCode) -> bool {
    status.as_u16() >= 500 || status == StatusCode::TOO_MANY_REQUESTS
}

/// 429 and 503 say "too much to do", and only they may say when to come back; any may say that it was tried already.
fn of_error(status: StatusCode, headers: &HeaderMap, now: fn() -> SystemTime) -> Outcome {
    let outcome = match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let after = retry_after(headers, now);
            Outcome::overload().with_pushback(after.map_or(Pushback::None, Pushback::After))
        }
        _ => Outcome::failure(),
    };
    match headers.get(RETRY_HEADER) {
        Some(said) if *said == NO_RETRY => outcome.with_pushback(Pushback::Stop),
        _ => outcome,
    }
}

/// What the end of a body will mean, as far as the head tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Plain HTTP: an end that comes at all is a success.
    Plain,
    /// gRPC: `grpc-status` in the trailers decides.
    Trailers,
    /// gRPC without a message: `grpc-status` was in the head.
    Told(Outcome),
}

impl Ending {
    pub(crate) fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        if !grpc::is_grpc(headers) {
            return Self::Plain;
        }
        match grpc::outcome(headers) {
            Some(outcome) => Self::Told(outcome),
            None if status == StatusCode::OK => Self::Trailers,
            // gRPC answers 200. Any other status comes from something in between, and is all there is to go by.
            None => Self::Plain,
        }
    }

    /// What the end says, which came with `trailers` or without any.
    pub(crate) fn at_end(self, trailers: Option<&HeaderMap>) -> Outcome {
        match self {
            Self::Plain => Outcome::success(),
            Self::Trailers => trailers.and_then(grpc::outcome).unwrap_or(grpc::NO_STATUS),
            Self::Told(outcome) => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;
    use tower_mesh_core::{Class, Sent};

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn head(status: u16, fields: &[(&'static str, &'static str)], ended: bool) -> Verdict {
        let headers = fields
            .iter()
            .map(|(name, value)| {
                let name = http::HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            })
            .collect();
        at_head(StatusCode::from_u16(status).unwrap(), &headers, ended, now)
    }

    const GRPC: (&str, &str) = ("content-type", "application/grpc");

    #[test]
    fn what_a_status_says_is_known_at_the_head_if_it_is_an_error_and_else_when_the_body_ends() {
        for status in [500, 501, 502, 504, 505, 599, 600, 999] {
            assert_eq!(
                head(status, &[], false),
                Outcome::failure().into(),
                "{status}"
            );
            assert_eq!(
                head(status, &[], true),
                Outcome::failure().into(),
                "{status}"
            );
        }
        for status in [429, 503] {
            assert_eq!(
                head(status, &[], false),
                Outcome::overload().into(),
                "{status}"
            );
        }
        for status in [101, 200, 204, 302, 400, 401, 404, 408, 409, 421, 425, 499] {
            assert_eq!(head(status, &[], false), Verdict::Deferred, "{status}");
            assert_eq!(
                head(status, &[], true),
                Outcome::success().into(),
                "{status}"
            );
        }
    }

    // row 17
    #[test]
    fn only_429_and_503_say_when_to_come_back() {
        for (status, obeyed) in [(429, true), (503, true), (500, false), (502, false)] {
            let Verdict::Done(outcome) = head(status, &[("retry-after", "7")], false) else {
                panic!("{status} is deferred");
            };
            let after = Pushback::After(Duration::from_secs(7));
            assert_eq!(outcome.pushback() == after, obeyed, "{status}");
            assert_eq!(outcome.sent(), Sent::Maybe);
        }
        assert_eq!(
            head(200, &[("retry-after", "7")], true),
            Outcome::success().into()
        );
    }

    // scenario S1, the chain
    #[test]
    fn what_was_tried_already_is_not_to_be_tried_again_whatever_else_is_said() {
        let said = ("x-mesh-retry", "no");
        for status in [429, 500, 502, 503] {
            let stop = head(status, &[said, ("retry-after", "7")], false);
            let Verdict::Done(outcome) = stop else {
                panic!("{status} is deferred");
            };
            assert_eq!(outcome.pushback(), Pushback::Stop, "{status}");
            let junk = head(status, &[("x-mesh-retry", "maybe")], false);
            assert_eq!(junk, head(status, &[], false), "{status}");
        }
        assert_eq!(head(200, &[said], true), Outcome::success().into());
    }

    // scenario 11
    #[test]
    fn grpc_is_known_at_the_head_only_if_its_status_is_there() {
        assert_eq!(head(200, &[GRPC], false), Verdict::Deferred);
        for (code, outcome) in [("0", Outcome::success()), ("14", Outcome::failure())] {
            let told = [GRPC, ("grpc-status", code)];
            assert_eq!(head(200, &told, false), outcome.into());
            assert_eq!(head(503, &told, true), outcome.into());
        }
        assert_eq!(head(200, &[GRPC], true), Outcome::failure().into());
    }

    #[test]
    fn grpc_behind_a_proxy_that_answers_itself_is_judged_by_the_http_status() {
        assert_eq!(head(503, &[GRPC], false), Outcome::overload().into());
        assert_eq!(head(404, &[GRPC], true), Outcome::success().into());
    }

    #[test]
    fn grpc_status_means_nothing_where_there_is_no_grpc() {
        assert_eq!(
            head(200, &[("grpc-status", "14")], true),
            Outcome::success().into()
        );
    }

    #[test]
    fn the_end_of_grpc_is_what_its_trailers_say_and_a_failure_without_them() {
        let ending = Ending::of(
            StatusCode::OK,
            &HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static(GRPC.1))]),
        );
        for (code, class) in [
            ("0", Class::Success),
            ("14", Class::Failure),
            ("8", Class::Overload),
        ] {
            let trailers = crate::script::grpc_status(code);
            assert_eq!(ending.at_end(Some(&trailers)).class(), class, "{code}");
        }
        assert_eq!(ending.at_end(Some(&HeaderMap::new())), Outcome::failure());
        assert_eq!(ending.at_end(None), Outcome::failure());
    }
}
