//! One call of the examined service, polled by hand.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tower_service::Service;

use super::inner::Stage;
use crate::time::{Clock, ManualClock};

/// How time passes.
pub(super) enum Time {
    Tokio,
    Manual(ManualClock),
}

impl Time {
    pub(super) async fn pass(&self, time: Duration) {
        match self {
            Self::Manual(clock) => clock.advance(time),
            // Outside a runtime nothing can have a timer.
            Self::Tokio if tokio::runtime::Handle::try_current().is_err() => {}
            Self::Tokio => Clock::tokio().sleep(time).await,
        }
    }
}

/// Whether a call was woken since it was last asked.
#[derive(Default)]
pub(super) struct Woken(AtomicBool);

impl Woken {
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One call: the service is made ready, called, and its future polled.
pub(super) struct Run<S: Service<Req>, Req> {
    service: S,
    request: Option<Req>,
    phase: Phase<S::Future>,
    woken: Arc<Woken>,
}

enum Phase<F> {
    Fresh,
    Ready,
    Called(Pin<Box<F>>),
}

/// Where a step has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is ready to be called.
    Ready,
    /// It is called, its future was not polled yet.
    Called,
    /// It waits.
    Pending,
    /// It has ended.
    Ended(Ended),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Ok,
    Err,
    Panic,
    /// It waits although everything has happened that it could wait for.
    Stuck,
    /// It is woken again and again although nothing happens.
    Spinning,
}

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    Ready,
    Steps(u32),
    End,
}

/// Polls that wake their own task without anything else happening; a few are how some primitives hand over.
pub(super) const SPINS: u32 = 16;

/// Time passes in steps that double, from a millisecond up to twelve days.
pub(super) const LONG: u32 = 30;

impl<S: Service<Req>, Req> Run<S, Req> {
    pub(super) fn new(service: S, request: Req) -> Self {
        Self {
            service,
            request: Some(request),
            phase: Phase::Fresh,
            woken: Arc::default(),
        }
    }

    /// Another call of the same instance.
    pub(super) fn again(self, request: Req) -> Self {
        Self::new(self.service, request)
    }

    pub(super) fn service(&self) -> &S {
        &self.service
    }

    pub(super) fn is_called(&self) -> bool {
        matches!(self.phase, Phase::Called(_))
    }

    pub(super) fn woken(&self) -> &Woken {
        &self.woken
    }

    /// Polls readiness, or calls, or polls the future: one thing at a time.
    pub(super) fn step(&mut self) -> Step {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut cx = Context::from_waker(&waker);
        // What is examined may be left in any state by a panic: whether that harms is the question.
        catch_unwind(AssertUnwindSafe(|| self.poll(&mut cx))).unwrap_or(Step::Ended(Ended::Panic))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Step {
        let ended = |ok| Step::Ended(if ok { Ended::Ok } else { Ended::Err });
        match &mut self.phase {
            Phase::Fresh => match self.service.poll_ready(cx) {
                Poll::Pending => Step::Pending,
                Poll::Ready(Err(_)) => ended(false),
                Poll::Ready(Ok(())) => {
                    self.phase = Phase::Ready;
                    Step::Ready
                }
            },
            Phase::Ready => {
                let request = self.request.take().expect("it is called once");
                self.phase = Phase::Called(Box::pin(self.service.call(request)));
                Step::Called
            }
            Phase::Called(future) => match future.as_mut().poll(cx) {
                Poll::Pending => Step::Pending,
                Poll::Ready(end) => ended(end.is_ok()),
            },
        }
    }

    /// Goes on until then, letting happen what it waits for; how it has ended, if it has.
    pub(super) async fn drive<Res>(
        &mut self,
        until: Until,
        stage: &Stage<Res>,
        time: &Time,
    ) -> Option<Ended> {
        let (mut steps, mut spins) = (0, 0);
        while until != Until::Steps(steps) {
            steps += 1;
            match self.step() {
                Step::Ended(end) => return Some(end),
                Step::Ready if until == Until::Ready => return None,
                Step::Ready | Step::Called => {}
                Step::Pending if self.woken.take() => {
                    spins += 1;
                    if spins > SPINS {
                        return Some(Ended::Spinning);
                    }
                }
                Step::Pending => {
                    spins = 0;
                    if !self.wait(stage, time).await {
                        return Some(Ended::Stuck);
                    }
                }
            }
        }
        None
    }

    /// Lets something happen until it is woken; whether it was.
    async fn wait<Res>(&self, stage: &Stage<Res>, time: &Time) -> bool {
        stage.tick();
        for doublings in 0..LONG {
            if self.woken.take() {
                return true;
            }
            time.pass(Duration::from_millis(1 << doublings)).await;
        }
        self.woken.take()
    }
}
