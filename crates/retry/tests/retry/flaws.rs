//! Flaws of other retries, and ours under the same conditions. Where a peer is tower's own it is tower's; the others are
//! broken variants, each a few lines, that do what their documentation of the flaw says.

use std::{
    collections::HashSet,
    error::Error,
    future::Future,
    marker::PhantomData,
    num::NonZeroU32,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use tower::{
    BoxError, Layer, Service, ServiceExt,
    limit::ConcurrencyLimit,
    retry::{Policy, Retry as Towers},
    service_fn,
};
use tower_mesh_core::{AtEndpoint, Clock, Endpoint, Kind, Outcome, Refusal, Rng, Sleep};
use tower_mesh_retry::{Backoff, Budget, Jitter, RetryLayer};

use crate::{
    attempts::generous,
    script::{Script, Step, busy, down, fails, ms, ok, with_deadline},
};

/// Retries as tower-resilience does by default, and seatbelt but for its jitter: every error, after 100 ms, 200 ms and
/// so on, whatever it says, and asking no budget. The request is cloned before it is known whether it is needed again.
#[derive(Clone)]
struct Everything {
    retries: u32,
    made: u32,
}

fn everything<S>(attempts: u32, service: S) -> Towers<Everything, S> {
    let retries = attempts - 1;
    Towers::new(Everything { retries, made: 0 }, service)
}

impl<Req: Clone> Policy<Req, u16, BoxError> for Everything {
    type Future = Sleep;

    fn retry(&mut self, _: &mut Req, result: &mut Result<u16, BoxError>) -> Option<Sleep> {
        if result.is_ok() || self.made == self.retries {
            return None;
        }
        self.made += 1;
        Some(Clock::tokio().sleep(ms(100) * 2u32.pow(self.made - 1)))
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

/// Ours with the same waits.
fn waiting(attempts: u32) -> RetryLayer {
    RetryLayer::new(generous())
        .attempts(NonZeroU32::new(attempts).unwrap())
        .backoff(Backoff::exponential(ms(100), ms(1_000)).jitter(Jitter::None))
}

/// Attempts of a thousand calls that all fail, a millisecond apart.
async fn attempts_in_an_outage<S>(retry: S, script: &Script) -> usize
where
    S: Service<&'static str, Error: std::fmt::Debug> + Clone,
{
    join_all((0..1_000).map(|call| {
        let retry = retry.clone();
        async move {
            Clock::tokio().sleep(ms(call)).await;
            assert!(retry.oneshot("a").await.is_err());
        }
    }))
    .await;
    script.calls()
}

#[tokio::test(start_paused = true)]
async fn t22_b2_an_outage_is_not_multiplied() {
    let script = Script::always(down);
    let ours = RetryLayer::new(Budget::default()).layer(script.clone());
    let ours = attempts_in_an_outage(ours, &script).await;
    assert!((1_099..=1_102).contains(&ours), "a tenth more: {ours}");

    let script = Script::always(down);
    let theirs = attempts_in_an_outage(everything(4, script.clone()), &script).await;
    assert_eq!(theirs, 4_000);
}

/// How often a call is made that the mesh itself refuses, since it has too much to do already.
async fn calls_of_what_is_shed<S>(make: impl FnOnce(Script) -> S) -> usize
where
    S: Service<&'static str>,
{
    let script = Script::always(|| fails(Refusal::local(Kind::Overloaded)));
    assert!(make(script.clone()).oneshot("a").await.is_err());
    script.calls()
}

#[tokio::test(start_paused = true)]
async fn t22_what_the_mesh_itself_refuses_is_not_tried_again() {
    type Failure = dyn Error + Send + Sync + 'static;

    let ours = calls_of_what_is_shed(|script| waiting(3).layer(script));
    assert_eq!(ours.await, 1);
    // Nor with a classifier that would try everything again.
    let all = |_: Result<&u16, &Failure>| Outcome::failure().never_sent();
    let ours = calls_of_what_is_shed(|script| waiting(3).classify(all).layer(script));
    assert_eq!(ours.await, 1);

    let theirs = calls_of_what_is_shed(|script| everything(3, script));
    assert_eq!(theirs.await, 3);
}

/// Fifty callers fail at the same time: at how many different times they come back.
async fn different_times<S>(retry: S, script: &Script) -> usize
where
    S: Service<&'static str> + Clone,
{
    join_all((0..50).map(|_| retry.clone().oneshot("a"))).await;
    let times: HashSet<_> = script.times().into_iter().collect();
    assert_eq!(script.calls(), 100);
    times.len() - 1
}

#[tokio::test(start_paused = true)]
async fn t22_callers_that_fail_together_do_not_come_back_together() {
    let script = Script::always(down);
    let two = NonZeroU32::new(2).unwrap();
    let ours = RetryLayer::new(generous())
        .attempts(two)
        .rng(Rng::seeded(22));
    let ours = different_times(ours.layer(script.clone()), &script).await;
    assert!(ours > 15, "{ours} of the 25 ms of the first wait");

    let script = Script::always(down);
    let theirs = different_times(everything(2, script.clone()), &script).await;
    assert_eq!(theirs, 1);
}

/// When the attempts are made of which the second asks for 250 ms of peace.
async fn times_with_a_pushback<S>(make: impl FnOnce(Script) -> S) -> Vec<Duration>
where
    S: Service<&'static str, Error: std::fmt::Debug>,
{
    let script = Script::new([down(), busy(ms(250)), ok()]);
    make(script.clone()).oneshot("a").await.ok().unwrap();
    script.times()
}

#[tokio::test(start_paused = true)]
async fn t22_a_service_that_says_when_to_come_back_is_heard() {
    let ours = times_with_a_pushback(|script| waiting(3).layer(script)).await;
    assert_eq!(ours, [0, 100, 350].map(ms));

    let theirs = times_with_a_pushback(|script| everything(3, script)).await;
    assert_eq!(theirs, [0, 100, 300].map(ms));
}

/// Whether a call has ended by its deadline, which is before the next attempt would be made.
async fn ends_by_its_deadline<S>(retry: S) -> bool
where
    S: Service<&'static str>,
{
    let begun = Clock::tokio().now();
    let _ = with_deadline(Clock::tokio(), ms(50), retry.oneshot("a")).await;
    Clock::tokio().now().since(begun) <= ms(50)
}

#[tokio::test(start_paused = true)]
async fn t22_a_wait_that_would_outlast_the_deadline_is_not_begun() {
    let script = Script::always(down);
    assert!(ends_by_its_deadline(waiting(3).layer(script)).await);

    let script = Script::always(down);
    assert!(!ends_by_its_deadline(everything(3, script)).await);
}

/// Tells how often it was cloned.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

/// How often a request is cloned that may be sent once.
async fn clones<S>(make: impl FnOnce(Script<Counted>) -> S) -> usize
where
    S: Service<Counted>,
{
    let clones = Arc::default();
    let script = Script::new([down()]);
    let answer = make(script).oneshot(Counted(Arc::clone(&clones))).await;
    assert!(answer.is_err());
    clones.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn t23_v2_a_request_that_is_sent_once_is_not_cloned() {
    assert_eq!(clones(|script| waiting(1).layer(script)).await, 0);

    assert_eq!(clones(|script| everything(1, script)).await, 1);
    assert_eq!(clones(|script| neighbours(0, script)).await, 1);
}

/// All that is said of a failed call: its error, and what that says was its source.
async fn told<S>(retry: S) -> String
where
    S: Service<&'static str, Error = BoxError>,
    S::Response: std::fmt::Debug,
{
    let error = retry.oneshot("a").await.unwrap_err();
    let sources = std::iter::successors(error.source(), |error| (*error).source());
    sources.fold(error.to_string(), |told, error| format!("{told}: {error}"))
}

fn at(port: u16, error: &'static str) -> Step {
    let endpoint = Endpoint::new(([10, 0, 0, 1], port).into());
    Step::Answer(Err(AtEndpoint::new(endpoint, error).into()))
}

#[tokio::test(start_paused = true)]
async fn w13_the_first_error_outlives_a_retry_for_which_the_service_is_not_ready() {
    let closed = || Step::Unready("closed".into());
    let script = || Script::new([at(1, "reset"), closed(), closed()]);
    let ours = told(waiting(3).layer(script())).await;
    assert!(ours.contains("reset"), "{ours}");

    let theirs = told(everything(3, script())).await;
    assert_eq!(theirs, "closed");
}

/// Retries as volo does: at once, with a clone of the request for each attempt, and with an error of its own at the end.
fn neighbours<Req: Clone + Send + 'static>(
    retries: usize,
    script: Script<Req>,
) -> impl Service<Req, Response = u16, Error = BoxError> {
    service_fn(move |request: Req| {
        let mut next = script.clone();
        async move {
            for _ in 0..=retries {
                let ready = next.ready().await?;
                if let Ok(answer) = ready.call(request.clone()).await {
                    return Ok(answer);
                }
            }
            Err("retry".into())
        }
    })
}

#[tokio::test(start_paused = true)]
async fn v2_the_last_error_is_told() {
    let script = || Script::new([at(1, "reset"), at(2, "refused"), at(3, "no route")]);
    let ours = told(waiting(3).layer(script())).await;
    assert!(
        ours.contains("10.0.0.1:3") && ours.ends_with("no route"),
        "{ours}"
    );

    assert_eq!(told(neighbours(2, script())).await, "retry");
}

/// When the attempts are made of a call that always fails.
async fn times_of_attempts<S>(make: impl FnOnce(Script) -> S) -> Vec<Duration>
where
    S: Service<&'static str>,
{
    let script = Script::always(down);
    assert!(make(script.clone()).oneshot("a").await.is_err());
    script.times()
}

#[tokio::test(start_paused = true)]
async fn v2_there_is_a_wait_between_attempts() {
    let ours = times_of_attempts(|script| waiting(3).layer(script)).await;
    assert_eq!(ours, [0, 100, 300].map(ms));

    let theirs = times_of_attempts(|script| neighbours(2, script)).await;
    assert_eq!(theirs, [ms(0); 3]);
}

/// Retries as seatbelt does: each attempt is a call of a clone, which nobody has made ready; and it wants `Sync`.
#[derive(Clone)]
struct Clones<S>(S);

impl<S, Req> Service<Req> for Clones<S>
where
    Req: Clone + Send + 'static,
    S: Service<Req, Error = BoxError> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Response: Send,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            loop {
                if let Ok(answer) = service.clone().call(request.clone()).await {
                    return Ok(answer);
                }
            }
        })
    }
}

/// The answer over tower's limit, which panics when it is called and was not made ready; or nothing if it did.
async fn answer_over_a_limit<S>(
    make: impl FnOnce(ConcurrencyLimit<Script>) -> S,
) -> Option<Result<u16, BoxError>>
where
    S: Service<&'static str, Response = u16, Error = BoxError>,
{
    let script = Script::new([down(), down(), ok()]);
    let retry = make(ConcurrencyLimit::new(script, 1));
    let call = AssertUnwindSafe(retry.oneshot("a"));
    call.catch_unwind().await.ok()
}

#[tokio::test(start_paused = true)]
async fn b1_every_attempt_is_made_ready_before_it_is_called() {
    let ours = answer_over_a_limit(|limited| waiting(3).layer(limited)).await;
    assert_eq!(ours.unwrap().unwrap(), 200);

    assert!(answer_over_a_limit(Clones).await.is_none());
}

/// Answers, but can be used by one thread at a time alone.
#[derive(Clone)]
struct NotSync(PhantomData<std::cell::Cell<()>>);

impl Service<&'static str> for NotSync {
    type Response = u16;
    type Error = BoxError;
    type Future = std::future::Ready<Result<u16, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: &'static str) -> Self::Future {
        std::future::ready(Ok(200))
    }
}

/// Whether `S` is a service: where a bound of it is not met, the constant of the trait is found instead.
struct Is<S>(PhantomData<S>);

trait IsNoService {
    const A_SERVICE: bool = false;
}

impl<S> IsNoService for Is<S> {}

impl<S: Service<&'static str, Future: Future + Send>> Is<S> {
    const A_SERVICE: bool = true;
}

#[test]
fn b2_the_service_beneath_need_not_be_sync() {
    type Ours<S> = <RetryLayer as Layer<S>>::Service;

    const {
        assert!(Is::<Ours<Script>>::A_SERVICE && Is::<Clones<Script>>::A_SERVICE);
        assert!(Is::<Ours<NotSync>>::A_SERVICE);
        assert!(!Is::<Clones<NotSync>>::A_SERVICE);
    }
}
