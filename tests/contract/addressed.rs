//! What knows HTTP: addressing, replay, verdicts and permits that last to the end of the body.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty};
use tower::{Layer, Service, service_fn};
use tower_mesh::{
    Body,
    balance::Balance,
    core::{
        BoxError, Endpoints, Layered, Outcome, Verdict,
        testing::contract::{Inner, Rule},
    },
    http::{Addressed, AddressedShared, CompleteOnBody, HttpClassify, HttpReplay},
    retry::RetryLayer,
};

use crate::support::{ATTEMPTS, Exam, Heard, Kit, Situation, endpoint};

pub(crate) type Get = Request<Body>;

pub(crate) fn get() -> Get {
    Request::new(Body::empty())
}

/// Requests that may be sent again, and responses that have ended with their head.
pub(crate) fn exam() -> Exam<Get, Response<Empty<Bytes>>> {
    Exam::new(get, Response::default)
}

/// The same, with responses whose bodies have to be read.
pub(crate) fn exam_of_bodies() -> Exam<Get, Response<Slow>> {
    Exam::new(get, || Response::new(Slow::default()))
}

pub(crate) fn retry(kit: &Kit) -> RetryLayer<HttpReplay, HttpClassify> {
    kit.retry()
        .replay(HttpReplay::new())
        .classify(HttpClassify::new())
}

/// A balancer over clients that are addressed to each endpoint.
pub(crate) type Balanced<B> = Balance<Addressed<Inner<Response<B>>>, HttpClassify, CompleteOnBody>;

pub(crate) fn balanced<B: 'static>(
    kit: &Kit,
    endpoints: &Endpoints,
    inner: Inner<Response<B>>,
) -> Balanced<B> {
    let clients = Layered::new(AddressedShared::new(inner), kit.endpoint_breakers());
    let balance = kit
        .balance_over(endpoints)
        .classify(HttpClassify::new())
        .completion(CompleteOnBody::new())
        .layer(clients);
    kit.watch(endpoints);
    balance
}

/// Judges a call by its head, as the mesh's breaker of a service does.
#[derive(Clone, Copy)]
pub(crate) struct ByHead(pub(crate) HttpClassify);

impl<B: http_body::Body> tower_mesh::core::Classify<Response<B>> for ByHead {
    type Answer = Outcome;

    fn classify(
        &self,
        result: Result<&Response<B>, &(dyn std::error::Error + Send + Sync + 'static)>,
    ) -> Outcome {
        match self.0.classify(result) {
            Verdict::Done(outcome) => outcome,
            Verdict::Deferred => Outcome::success(),
        }
    }
}

/// A body of two frames, before each of which it has to be waited for.
#[derive(Default)]
pub(crate) struct Slow(u8);

impl http_body::Body for Slow {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0 += 1;
        match self.0 {
            2 | 4 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"half"))))),
            1 | 3 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Ready(None),
        }
    }
}

/// Reads the response's body as part of the call, as callers do: so it can be dropped half-way.
#[derive(Clone)]
pub(crate) struct Read<S>(pub(crate) S);

impl<S, B> Service<Get> for Read<S>
where
    S: Service<Get, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: 'static,
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    type Response = Bytes;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Bytes, BoxError>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Get) -> Self::Future {
        let response = self.0.call(request);
        Box::pin(async move {
            let response = response.await.map_err(Into::into)?;
            let body = response.into_body().collect().await.map_err(Into::into)?;
            Ok(body.to_bytes())
        })
    }
}

/// It is ready when the client is, so a clone that is ready holds what the client's readiness holds.
#[test]
fn an_addressed_client_keeps_the_contract_of_a_service_that_hands_readiness_through() {
    exam()
        .without(Rule::IdleHoldsNothing)
        .passes(|_, inner| Addressed::new(inner, &endpoint(1)));
}

#[test]
fn a_balancer_over_addressed_clients() {
    exam().passes(|kit, inner| balanced(kit, &kit.fleet(1), inner));
    exam().passes(|kit, inner| balanced(kit, &kit.fleet(3), inner));
}

#[test]
fn retries_over_a_balancer_of_addressed_clients() {
    exam()
        .attempts(ATTEMPTS)
        .passes(|kit, inner| retry(kit).layer(balanced(kit, &kit.fleet(3), inner)));
}

// I1: an attempt is in flight until its body is read, or dropped.
#[test]
fn a_balancer_whose_attempts_last_to_the_end_of_the_body() {
    exam_of_bodies().passes(|kit, inner| {
        let service = Read(balanced(kit, &kit.fleet(1), inner));
        // Of a body that is dropped half-way nothing is said, though the client has answered.
        kit.counts_nothing();
        service
    });
}

#[test]
fn a_bulkhead_whose_permits_last_to_the_end_of_the_body() {
    exam_of_bodies().attempts(ATTEMPTS).passes(|kit, inner| {
        let bulkhead = kit.bulkhead().completion(CompleteOnBody::new());
        let service = bulkhead.over(retry(kit).layer(balanced(kit, &kit.fleet(1), inner)));
        kit.counts_nothing();
        Read(service)
    });
}

// I1, I9
#[test]
fn the_attempt_ends_with_the_last_of_the_body_and_says_so_once() {
    let kit = Kit::by_hand(Situation::Usual);
    let endpoints = kit.fleet(1);
    let answers = service_fn(async |_: Get| Ok::<_, BoxError>(Response::new(Slow::default())));
    let layer = kit
        .balance_over(&endpoints)
        .classify(HttpClassify::new())
        .completion(CompleteOnBody::new());
    let client = AddressedShared::new(answers);
    let mut balance = layer.layer(Layered::new(client, kit.endpoint_breakers()));
    kit.watch(&endpoints);
    let in_flight = || {
        endpoints.current().endpoints()[0]
            .vitals()
            .load()
            .in_flight()
    };

    let response = tokio_test::block_on(balance.call(get())).unwrap();
    let mut body = response.into_body();
    while let Some(frame) = tokio_test::block_on(body.frame()) {
        frame.unwrap();
        assert_eq!(
            Heard::sum(&kit.heard()).successes + u64::from(in_flight()),
            1
        );
    }
    // Before it is dropped.
    let heard = Heard::sum(&kit.heard());
    assert_eq!((in_flight(), heard.successes, heard.failures), (0, 1, 0));
    drop(body);
    assert_eq!(Heard::sum(&kit.heard()), heard);
}
