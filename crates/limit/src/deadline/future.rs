//! A call with a deadline.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower_mesh_core::{
    BoxError, Clock, Instant, Sent,
    frame::{self, Framing, Own, Phase, Spent},
};

use super::error::DeadlineExceeded;

pin_project! {
    /// The response of a [`Deadline`](super::Deadline).
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the inner call and cancels the timer.
    pub struct DeadlineFuture<F, G = Own>
    where
        G: Framing,
    {
        #[pin]
        timed: Timed<F>,
        clock: Clock,
        #[pin]
        call: G::Call,
    }
}

pin_project! {
    /// What is polled in the frame of the call.
    struct Timed<F> {
        // None: its time was up.
        #[pin]
        inner: Option<F>,
        timeout: Duration,
        time: Option<Time>,
    }
}

/// When the call began and when it has to be over.
#[derive(Clone, Copy, Debug)]
struct Time {
    start: Instant,
    end: Instant,
}

impl<F, G: Framing> DeadlineFuture<F, G> {
    pub(super) fn new(inner: F, timeout: Duration, clock: Clock) -> Self {
        Self {
            timed: Timed {
                inner: Some(inner),
                timeout,
                time: None,
            },
            clock,
            call: G::Call::default(),
        }
    }
}

impl<F, G, T, E> Future for DeadlineFuture<F, G>
where
    F: Future<Output = Result<T, E>>,
    G: Framing,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (mut timed, clock) = (this.timed, &*this.clock);
        G::poll(this.call, clock, cx, |cx| timed.as_mut().poll(clock, cx))
    }
}

impl<F, T, E> Timed<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    fn poll(
        self: Pin<&mut Self>,
        clock: &Clock,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, BoxError>> {
        let this = self.project();
        let timeout = *this.timeout;
        let time = *this.time.get_or_insert_with(|| Time::begin(clock, timeout));
        if time.end <= time.start {
            return Poll::Ready(Err(DeadlineExceeded::already().into()));
        }
        let mut inner = this.inner;
        let running = inner.as_mut().as_pin_mut();
        let running = running.expect("polled after its time was up");
        match frame::within(time.end, || running.poll(cx)) {
            Poll::Ready(Ok(response)) => return Poll::Ready(Ok(response)),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
            Poll::Pending => {}
        }
        if frame::fired(time.end) {
            let exceeded = time.exceeded();
            frame::timing_out(|| inner.set(None));
            return Poll::Ready(Err(exceeded.into()));
        }
        frame::wake_at(time.end);
        Poll::Pending
    }
}

impl Time {
    fn begin(clock: &Clock, timeout: Duration) -> Self {
        let start = frame::now(clock);
        frame::enter(Phase::Attempt, start);
        let end = start + timeout;
        let end = frame::deadline().map_or(end, |inherited| inherited.min(end));
        Self { start, end }
    }

    #[cold]
    fn exceeded(self) -> DeadlineExceeded {
        // The timer says that `end` has come: no need to read the clock.
        let spent = frame::spent(self.end);
        DeadlineExceeded::after(self.end.since(self.start), spent, sent(spent))
    }
}

/// Whether the request may have left: surely not if layers of the mesh have held it back all the time, before a first
/// attempt.
fn sent(spent: Spent) -> Sent {
    let held_back = spent.attempt == 0 && spent.attempts.is_zero() && spent.phase != Phase::Attempt;
    if held_back { Sent::Never } else { Sent::Maybe }
}

impl<F, G: Framing> fmt::Debug for DeadlineFuture<F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineFuture")
            .field("timeout", &self.timed.timeout)
            .field("time", &self.timed.time)
            .finish_non_exhaustive()
    }
}
