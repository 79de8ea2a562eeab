//! Flaws of the peers: each test holds ours to an assertion that the peer, or a broken copy, fails.

use std::{
    future::{Future, pending, poll_fn},
    task::Poll,
    time::Duration,
};

use futures_util::FutureExt;
use tokio_test::task::spawn;
use tower::{BoxError, Service, limit::ConcurrencyLimit, timeout::Timeout, util::Oneshot};
use tower_layer::Layer;
use tower_mesh_core::Kind;
use tower_mesh_limit::{DeadlineExceeded, DeadlineLayer, PerCall};

use crate::{
    Ask, Inner, MS, Now, SECOND, bulkhead, bulkhead::KeepInResponse, call, deadline, poll,
};

/// Makes a clone ready and lets it lie; whether another clone can be called meanwhile.
fn an_idle_clone_keeps_nobody_waiting<S>(service: S) -> bool
where
    S: Service<Ask> + Clone,
{
    let mut idle = service.clone();
    assert!(spawn(poll_fn(|cx| idle.poll_ready(cx))).poll().is_ready());
    let answered = spawn(Oneshot::new(service, Ask::Answer)).poll().is_ready();
    drop(idle);
    answered
}

// flaw T18, and vector #26457: an idle connection keeps the permit that it took when it was ready
#[test]
fn t18_readiness_that_is_not_used_holds_nothing() {
    let inner = Inner::default();
    let limited = bulkhead(1).layer(inner.clone());
    assert!(an_idle_clone_keeps_nobody_waiting(limited.clone()));
    // Nor do ours hold the readiness of what is beneath them.
    let scarce = ConcurrencyLimit::new(inner.clone(), 1);
    assert!(an_idle_clone_keeps_nobody_waiting(
        bulkhead(5).layer(scarce.clone())
    ));
    assert!(an_idle_clone_keeps_nobody_waiting(
        DeadlineLayer::new(SECOND).layer(scarce.clone())
    ));
    assert!(an_idle_clone_keeps_nobody_waiting(PerCall::new(scarce)));

    assert!(!an_idle_clone_keeps_nobody_waiting(ConcurrencyLimit::new(
        inner, 1
    )));
}

/// How many of so many calls are left pending when one that never ends is running.
fn parked<S>(service: &S, offered: usize) -> usize
where
    S: Service<Ask> + Clone,
{
    let mut running = spawn(Oneshot::new(service.clone(), Ask::Never));
    assert!(running.poll().is_pending());
    let mut tasks: Vec<_> = (0..offered)
        .map(|_| spawn(Oneshot::new(service.clone(), Ask::Answer)))
        .collect();
    let pending = tasks.iter_mut().map(|task| task.poll().is_pending());
    pending.filter(|pending| *pending).count()
}

// flaw T19
#[test]
fn t19_a_default_bulkhead_parks_nobody_and_a_queue_is_bounded() {
    let inner = Inner::default();
    assert_eq!(parked(&bulkhead(1).layer(inner.clone()), 20_000), 0);
    let (clock, _) = tower_mesh_core::Clock::manual();
    let queued = bulkhead(1).queue(7).clock(clock);
    assert_eq!(parked(&queued.layer(inner.clone()), 20_000), 7);

    assert_eq!(parked(&ConcurrencyLimit::new(inner, 1), 20_000), 20_000);
}

/// Whether a service for one at a time is called again while the response to the first call is still read.
fn is_called_while_a_response_is_read<S: Service<Ask>>(mut service: S, inner: &Inner) -> bool {
    let Poll::Ready(Ok(being_read)) = call(&mut service, Ask::Answer).poll() else {
        panic!("there was a permit");
    };
    assert_eq!(inner.called(), 1);
    let mut next = spawn(async {
        poll_fn(|cx| service.poll_ready(cx)).await.ok()?;
        service.call(Ask::Answer).await.ok()
    });
    let _ = next.poll();
    drop(being_read);
    inner.called() == 2
}

// flaw W10
#[test]
fn w10_a_permit_outlasts_the_head_of_the_response() {
    let inner = Inner::default();
    let ours = bulkhead(1).completion(KeepInResponse).layer(inner.clone());
    assert!(!is_called_while_a_response_is_read(ours, &inner));

    let inner = Inner::default();
    let mut peer = ConcurrencyLimit::new(inner.clone(), 1);
    assert!(spawn(poll_fn(|cx| peer.poll_ready(cx))).poll().is_ready());
    assert!(is_called_while_a_response_is_read(peer, &inner));
}

/// As a detached time limiter does it: whatever keeps the answer from coming is a timeout.
async fn detached<F: Future>(work: F) -> Result<F::Output, &'static str> {
    let work = std::panic::AssertUnwindSafe(work);
    work.catch_unwind().await.map_err(|_| "timed out")
}

// flaw T20
#[test]
fn t20_an_inner_panic_is_a_panic_and_no_timeout() {
    let ends_as_panic = |future: &mut dyn FnMut() -> bool| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(future)).is_err()
    };
    let (layer, _, _) = deadline(SECOND);
    let mut service = layer.layer(Inner::default());
    let mut task = call(&mut service, Ask::PanicLater(0));
    assert!(ends_as_panic(&mut || task.poll().is_ready()));

    let mut peer = spawn(detached(service.call(Ask::PanicLater(0))));
    assert!(!ends_as_panic(&mut || peer.poll().is_ready()));
}

/// A service that never gets ready.
#[derive(Clone)]
struct NeverReady;

impl Service<Ask> for NeverReady {
    type Response = &'static str;
    type Error = BoxError;
    type Future = std::future::Pending<Result<&'static str, BoxError>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Pending
    }

    fn call(&mut self, _: Ask) -> Self::Future {
        pending()
    }
}

/// Whether a call to `service` has ended after `time`.
async fn ends_within<S>(service: S, time: Duration) -> Option<Result<S::Response, S::Error>>
where
    S: Service<Ask>,
{
    tokio::time::timeout(time, Oneshot::new(service, Ask::Answer))
        .await
        .ok()
}

// flaw W13
#[tokio::test(start_paused = true)]
async fn w13_the_wait_for_readiness_is_part_of_the_time() {
    let ours = DeadlineLayer::new(SECOND).layer(NeverReady);
    let error = ends_within(ours, 2 * SECOND).await.unwrap().unwrap_err();
    assert!(error.is::<DeadlineExceeded>());

    let peer = Timeout::new(NeverReady, SECOND);
    assert!(ends_within(peer, 3600 * SECOND).await.is_none());
}

// flaw T18
#[test]
fn the_readiness_that_a_deadline_ended_is_given_back() {
    let scarce = ConcurrencyLimit::new(Inner::default(), 1);
    let (layer, _, time) = deadline(10 * MS);
    let mut service = layer.layer(scarce.clone());
    let mut running = spawn(Oneshot::new(scarce.clone(), Ask::Never));
    assert!(running.poll().is_pending());
    let mut waiting = call(&mut service, Ask::Answer);
    assert_eq!(poll(&mut waiting), Now::Pending);
    time.advance(10 * MS);
    assert!(matches!(
        poll(&mut waiting),
        Now::Refused(Kind::DeadlineExceeded, _)
    ));
    drop(running);
    // The one who gave up is not handed the permit, although its task is still there.
    assert!(spawn(Oneshot::new(scarce, Ask::Answer)).poll().is_ready());
}
