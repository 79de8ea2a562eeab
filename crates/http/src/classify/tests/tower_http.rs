use ::tower_http::classify::{GrpcErrorsAsFailures, ServerErrorsAsFailures, SharedClassifier};
use std::time::Duration;

use super::*;

fn by_status(answer: Answer) -> (Verdict, Option<Outcome>) {
    let make = SharedClassifier::new(ServerErrorsAsFailures::new());
    heard(answered(FromTowerHttp::new(make), get(), answer), ALL)
}

fn by_grpc(answer: Answer) -> (Verdict, Option<Outcome>) {
    let make = SharedClassifier::new(GrpcErrorsAsFailures::new());
    heard(answered(FromTowerHttp::new(make), get(), answer), ALL)
}

#[test]
fn server_errors_are_failures_and_nothing_else_is() {
    let (head, _) = by_status(Ok(response(500, [Step::Data("a")])));
    assert_eq!(head, Outcome::failure().into());
    for status in [200, 404, 429] {
        let (head, end) = by_status(Ok(response(status, [Step::Data("a")])));
        let fine = (Verdict::Deferred, Some(Outcome::success()));
        assert_eq!((head, end), fine, "{status}");
        let (head, _) = by_status(Ok(response(status, [])));
        assert_eq!(head, Outcome::success().into(), "{status}");
    }
    let (_, end) = by_status(Ok(response(200, [Step::Data("a"), Step::Error])));
    assert_eq!(end, Some(Outcome::failure()));
}

#[test]
fn what_tower_http_does_not_know_of_a_failure_is_kept() {
    let mut busy = response(503, [Step::Data("a")]);
    busy.headers_mut()
        .insert("retry-after", "7".parse().unwrap());
    let after = Pushback::After(Duration::from_secs(7));
    let (head, _) = by_status(Ok(busy));
    assert_eq!(head, Outcome::overload().with_pushback(after).into());

    let unsent = Refusal::remote(Kind::Connect, Sent::Never);
    let (head, _) = by_status(Err(unsent.clone().into()));
    assert_eq!(head, unsent.outcome().into());
}

#[test]
fn grpc_errors_are_failures_in_trailers_and_in_trailers_only_heads() {
    // Which usually is a success: the endpoint did its work.
    let not_found = "5";
    assert_eq!(
        by_grpc(Ok(grpc(not_found))),
        (Verdict::Deferred, Some(Outcome::failure()))
    );
    assert_eq!(
        by_grpc(Ok(grpc("0"))),
        (Verdict::Deferred, Some(Outcome::success()))
    );
    for (code, outcome) in [(not_found, Outcome::failure()), ("0", Outcome::success())] {
        let mut only = grpc(code).map(|_| Script::new([]).telling_its_end());
        only.headers_mut().extend(grpc_status(code));
        let (head, _) = by_grpc(Ok(only));
        assert_eq!(head, outcome.into(), "{code}");
    }
}
