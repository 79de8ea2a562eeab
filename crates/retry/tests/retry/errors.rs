//! What a caller learns when retries could not help.

use std::error::Error;

use tower::{BoxError, Layer, ServiceExt};
use tower_mesh_core::{AtEndpoint, Endpoint, Kind, Refusal, Sent};
use tower_mesh_retry::{Exhausted, RetryLayer, Why};

use crate::{
    attempts::generous,
    script::{Script, Step, connection_refused, down, fails, judge, status},
};

async fn fail(steps: impl IntoIterator<Item = Step>) -> Exhausted {
    let script = Script::new(steps);
    let retry = RetryLayer::new(generous()).classify(judge).layer(script);
    let error = retry.oneshot("a").await.unwrap_err();
    *error.downcast::<Exhausted>().unwrap()
}

fn at(port: u16, error: &'static str) -> Step {
    let endpoint = Endpoint::new(([10, 0, 0, 1], port).into());
    Step::Answer(Err(AtEndpoint::new(endpoint, error).into()))
}

// flaw V2: the last error is not replaced by "retries failed".
#[tokio::test(start_paused = true)]
async fn each_attempt_s_endpoint_and_error_are_told_and_the_last_is_the_source() {
    let error = fail([at(1, "reset"), status(503), at(3, "refused")]).await;
    assert_eq!(
        error.to_string(),
        "3 attempts failed and no more are allowed: 1. 10.0.0.1:1: reset; \
         2. answered that it is overloaded; 3. 10.0.0.1:3: refused"
    );
    let endpoints = error
        .attempts()
        .iter()
        .map(|a| a.endpoint().map(Endpoint::id));
    let endpoints: Vec<_> = endpoints.collect();
    assert_eq!(endpoints, [Some("10.0.0.1:1"), None, Some("10.0.0.1:3")]);

    let refusal = error.source().unwrap();
    assert_eq!(
        Refusal::of(refusal).map(Refusal::kind),
        Some(Kind::AttemptsExhausted)
    );
    let last = refusal
        .source()
        .unwrap()
        .downcast_ref::<AtEndpoint>()
        .unwrap();
    assert_eq!(last.source().unwrap().to_string(), "refused");
}

// flaw W13: tower's retry returns the error of `poll_ready` and forgets why it retried.
#[tokio::test(start_paused = true)]
async fn a_service_that_fails_to_become_ready_for_a_retry_does_not_hide_the_first_error() {
    let closed = || Step::Unready("closed".into());
    let error = fail([at(1, "reset"), closed(), closed()]).await;
    let told: Vec<_> = error.attempts().iter().map(|a| a.error()).collect();
    assert_eq!(told, ["reset", "closed", "closed"]);
    assert_eq!(error.last().to_string(), "closed");
}

#[tokio::test(start_paused = true)]
async fn whether_any_attempt_was_sent_is_told() {
    let sent = |error: &Exhausted| Refusal::of(error).map(Refusal::sent);
    let never = fail([
        connection_refused(),
        connection_refused(),
        connection_refused(),
    ])
    .await;
    assert_eq!(sent(&never), Some(Sent::Never));
    let maybe = fail([connection_refused(), down(), connection_refused()]).await;
    assert_eq!(sent(&maybe), Some(Sent::Maybe));
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_refused_by_the_mesh_still_tells_of_the_first_attempt() {
    let error = fail([down(), fails(Refusal::local(Kind::NoEndpoint))]).await;
    assert_eq!((error.made(), error.why()), (2, Why::NotRetryable));
    assert_eq!(error.attempts()[0].error(), "down");
    assert!(error.last().is::<Refusal>());
}

#[tokio::test(start_paused = true)]
async fn one_attempt_that_nobody_would_retry_fails_with_its_own_error() {
    let script = Script::new([Step::Answer(Err(Refusal::local(Kind::Overloaded).into()))]);
    let retry = RetryLayer::new(generous()).layer(script);
    let error: BoxError = retry.oneshot("a").await.unwrap_err();
    assert_eq!(
        error.downcast_ref(),
        Some(&Refusal::local(Kind::Overloaded))
    );
}
