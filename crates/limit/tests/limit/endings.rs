//! A call may end in any state: nothing is left behind. The cancel test drops it after every number of polls.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio_test::task::Spawn;
use tower_layer::Layer;
use tower_mesh_core::{BoxError, Clock, ManualClock, frame};
use tower_mesh_limit::{BulkheadHandle, DeadlineLayer};
use tower_service::Service;

use crate::{Ask, Inner, MS, Now, SECOND, bulkhead, call, poll};

fn asks() -> Vec<Ask> {
    let mut asks = vec![Ask::Answer, Ask::Fail, Ask::Never, Ask::PanicInCall];
    for polls in 0..4 {
        asks.extend([
            Ask::Later(polls),
            Ask::FailLater(polls),
            Ask::PanicLater(polls),
        ]);
    }
    asks
}

struct Stand {
    inner: Inner,
    handle: BulkheadHandle,
    clock: Clock,
    time: ManualClock,
}

type BoxedService = Box<
    dyn Service<
            Ask,
            Response = &'static str,
            Error = BoxError,
            Future = std::pin::Pin<Box<dyn Future<Output = Result<&'static str, BoxError>>>>,
        >,
>;

fn boxed<S>(service: S) -> BoxedService
where
    S: Service<Ask, Response = &'static str, Error = BoxError> + 'static,
    S::Future: 'static,
{
    struct Boxing<S>(S);
    impl<S> Service<Ask> for Boxing<S>
    where
        S: Service<Ask>,
        S::Future: 'static,
    {
        type Response = S::Response;
        type Error = S::Error;
        type Future = std::pin::Pin<Box<dyn Future<Output = Result<S::Response, S::Error>>>>;

        fn poll_ready(
            &mut self,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), S::Error>> {
            self.0.poll_ready(cx)
        }

        fn call(&mut self, ask: Ask) -> Self::Future {
            Box::pin(self.0.call(ask))
        }
    }
    Box::new(Boxing(service))
}

/// Each service, and each pair, on a state of its own.
fn stands() -> Vec<(BoxedService, Stand)> {
    (0..5)
        .map(|which| {
            let (clock, time) = Clock::manual();
            let inner = Inner::default();
            let permits = bulkhead(1).queue(1).clock(clock.clone());
            let deadline = DeadlineLayer::new(SECOND).clock(clock.clone());
            let handle = permits.handle();
            let service = match which {
                0 => boxed(permits.layer(inner.clone())),
                1 => boxed(deadline.layer(inner.clone())),
                2 => boxed(deadline.layer(permits.layer(inner.clone()))),
                3 => boxed(permits.layer(deadline.layer(inner.clone()))),
                _ => boxed(deadline.over(permits.over(inner.clone()))),
            };
            let stand = Stand {
                inner,
                handle,
                clock,
                time,
            };
            (service, stand)
        })
        .collect()
}

impl Stand {
    /// I1: nothing is left when nobody calls.
    fn is_at_rest(&self, what: &str) {
        let now = self.handle.snapshot();
        assert_eq!((now.in_use, now.waiting), (0, 0), "{what}");
        assert_eq!(self.inner.running(), 0, "{what}");
        assert_eq!(self.inner.held(), 1, "{what}: only the service");
        assert_eq!(self.time.timers(), 0, "{what}");
        assert_eq!(frame::deadline(), None, "{what}");
        assert!(!frame::is_timing_out(), "{what}");
        let reads = self.time.reads();
        frame::now(&self.clock);
        assert_eq!(self.time.reads(), reads + 1, "{what}: a frame is open");
    }
}

/// Polls until it has ended, or this often. A panic is an end.
fn poll_times<F>(task: &mut Spawn<F>, polls: usize)
where
    F: Future<Output = Result<&'static str, BoxError>>,
{
    for _ in 0..polls {
        match catch_unwind(AssertUnwindSafe(|| poll(task))) {
            Ok(Now::Pending) => {}
            _ => return,
        }
    }
}

#[test]
fn a_call_dropped_after_any_number_of_polls_leaves_nothing_behind() {
    for ask in asks() {
        for polls in 0..6 {
            for (which, (mut service, stand)) in stands().into_iter().enumerate() {
                let what = format!("{ask:?}, {polls} polls, stand {which}");
                let task = catch_unwind(AssertUnwindSafe(|| call(&mut service, ask.clone())));
                let Ok(mut task) = task else {
                    stand.is_at_rest(&what);
                    continue;
                };
                poll_times(&mut task, polls);
                drop(task);
                stand.is_at_rest(&what);
                assert_eq!(
                    poll(&mut call(&mut service, Ask::Answer)),
                    Now::Answered,
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn a_call_dropped_while_it_waits_leaves_nothing_behind() {
    for polls in 0..6 {
        for hand_over_after in 0..6 {
            for (which, (mut service, stand)) in stands().into_iter().enumerate() {
                let what = format!("{polls} polls, handed over after {hand_over_after}, {which}");
                let mut running = Some(call(&mut service, Ask::Never));
                poll_times(running.as_mut().unwrap(), 1);
                let mut task = call(&mut service, Ask::Later(2));
                for done in 0..polls {
                    if done == hand_over_after {
                        running = None;
                    }
                    poll_times(&mut task, 1);
                }
                drop((task, running));
                stand.is_at_rest(&what);
            }
        }
    }
}

#[test]
fn a_call_whose_time_is_up_after_any_number_of_polls_leaves_nothing_behind() {
    for polls in 1..6 {
        for (which, (mut service, stand)) in stands().into_iter().enumerate().skip(1) {
            let mut task = call(&mut service, Ask::Never);
            poll_times(&mut task, polls);
            stand.time.advance(SECOND + MS);
            assert!(matches!(poll(&mut task), Now::Refused(..)), "stand {which}");
            drop(task);
            stand.is_at_rest(&format!("{polls} polls, stand {which}"));
        }
    }
}

#[test]
fn futures_and_services_go_wherever_their_inner_ones_go() {
    fn goes_anywhere<T: Send + Sync>(_: &T) {}
    let (clock, _) = Clock::manual();
    let permits = bulkhead(1).queue(1).clock(clock);
    let mut service = DeadlineLayer::new(SECOND).layer(permits.layer(Inner::default()));
    goes_anywhere(&service);
    goes_anywhere(&permits);
    goes_anywhere(&permits.handle());
    goes_anywhere(&service.call(Ask::Answer));
}
