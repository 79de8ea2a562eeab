//! The frame of a call, opened for each of its polls.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    ptr,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::{CLOSED, FRAME, Facts, Frame, UNREAD};
use crate::time::{Clock, Instant, Sleep};

pin_project! {
    /// The facts and the one timer of a call; part of each future that may be the outermost of the mesh.
    ///
    /// # Cancel safety
    ///
    /// Dropping it cancels the timer.
    pub struct Call {
        // None until it is pending in a frame of its own: a layer beneath another never needs any.
        facts: Option<Facts>,
        timer: Option<Sleep>,
    }
}

impl Call {
    /// A call that has not begun.
    pub const fn new() -> Self {
        Self {
            facts: None,
            timer: None,
        }
    }

    /// Polls `step` in a frame of its own, whatever is open: the beginning of a new call.
    ///
    /// When a layer beneath wished a wake-up and its time comes, `step` is polled again at once.
    pub fn poll<T>(
        self: Pin<&mut Self>,
        clock: &Clock,
        cx: &mut Context<'_>,
        mut step: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let this = self.project();
        let mut fired = UNREAD;
        loop {
            let opened = Opened::new(clock, cx, this.facts.as_ref(), fired);
            let out = step(cx);
            if out.is_ready() {
                return out;
            }
            let (facts, wake) = opened.left();
            *this.facts = Some(facts);
            drop(opened);
            if wake == Instant::NEVER || poll_timer(this.timer, clock, wake, cx).is_pending() {
                return Poll::Pending;
            }
            fired = wake;
        }
    }

    /// Polls `step` in the frame that is open, or else in one of its own.
    ///
    /// A frame counts as open only if its timer wakes the task in `cx`.
    #[inline]
    pub fn poll_joined<T>(
        self: Pin<&mut Self>,
        clock: &Clock,
        cx: &mut Context<'_>,
        mut step: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if is_joined(clock, cx) {
            step(cx)
        } else {
            self.poll(clock, cx, step)
        }
    }
}

/// How the future of a layer takes part in the frame of its call: [`Own`] unless it is told otherwise.
pub trait Framing: Copy + Default + fmt::Debug + Send + Sync + 'static {
    /// What the future keeps for it.
    type Call: Default;

    /// Polls `step` in the frame of the call.
    fn poll<T>(
        call: Pin<&mut Self::Call>,
        clock: &Clock,
        cx: &mut Context<'_>,
        step: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T>;
}

/// Joins the frame that is open, or opens one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own;

impl Framing for Own {
    type Call = Call;

    #[inline]
    fn poll<T>(
        call: Pin<&mut Call>,
        clock: &Clock,
        cx: &mut Context<'_>,
        step: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        call.poll_joined(clock, cx, step)
    }
}

/// Joins the frame that a layer above has opened, and keeps no timer for the case that none has: there is none to make
/// room for, and none to drop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Joined;

impl Framing for Joined {
    type Call = ();

    /// # Panics
    ///
    /// Without a frame: nobody would wake the call when its time is up.
    #[inline]
    fn poll<T>(
        _: Pin<&mut ()>,
        clock: &Clock,
        cx: &mut Context<'_>,
        mut step: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        assert!(
            is_joined(clock, cx),
            "a layer was told that one above opens the frame of its calls, with the same clock and in the same task, \
             and none does"
        );
        step(cx)
    }
}

#[inline]
fn is_joined(clock: &Clock, cx: &Context<'_>) -> bool {
    // The data of a waker tells tasks apart well enough: combinators that poll with wakers of their own allocate it.
    let task = cx.waker().data();
    FRAME.with(|frame| {
        frame.clock.get() == clock.source().identity() && ptr::eq(frame.task.get(), task)
    })
}

impl Default for Call {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("deadline", &self.facts.map(|facts| facts.deadline))
            .field("timer", &self.timer)
            .finish_non_exhaustive()
    }
}

/// Arms the timer for `at`, keeping the one that is there.
fn poll_timer(
    timer: &mut Option<Sleep>,
    clock: &Clock,
    at: Instant,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let mut sleep = Pin::new(timer.get_or_insert_with(|| clock.sleep_until(at)));
    if sleep.deadline() != at {
        sleep.as_mut().reset(at);
    }
    sleep.poll(cx)
}

/// An open frame; dropping it puts back what was there, also on panic.
struct Opened {
    timing_out: bool,
    /// None if there was no frame, as for nearly every call. On the heap: room for it here would cost all of them more than
    /// the rest of opening a frame, to spare those an allocation that are made within another's poll.
    outer: Option<Box<Outer>>,
}

/// A frame that another is opened in.
struct Outer {
    clock: usize,
    task: *const (),
    now: Instant,
    fired: Instant,
    wake: Instant,
    facts: Facts,
}

impl Opened {
    #[inline]
    fn new(clock: &Clock, cx: &Context<'_>, facts: Option<&Facts>, fired: Instant) -> Self {
        FRAME.with(|frame| {
            let opened = Self {
                timing_out: frame.timing_out.replace(false),
                outer: (frame.clock.get() != CLOSED).then(|| Outer::of(frame)),
            };
            frame.clock.set(clock.source().identity());
            frame.task.set(cx.waker().data());
            frame.now.set(UNREAD);
            frame.fired.set(fired);
            frame.wake.set(Instant::NEVER);
            match facts {
                None => frame.clear(),
                Some(facts) => frame.set_facts(facts),
            }
            opened
        })
    }

    /// What the call knows, and when it wishes to be woken.
    #[inline]
    fn left(&self) -> (Facts, Instant) {
        FRAME.with(|frame| (frame.facts(), frame.wake.get()))
    }
}

impl Drop for Opened {
    #[inline]
    fn drop(&mut self) {
        FRAME.with(|frame| {
            frame.timing_out.set(self.timing_out);
            match &self.outer {
                None => frame.clock.set(CLOSED),
                Some(outer) => outer.put_back(frame),
            }
        });
    }
}

impl Outer {
    #[cold]
    fn of(frame: &Frame) -> Box<Self> {
        Box::new(Self {
            clock: frame.clock.get(),
            task: frame.task.get(),
            now: frame.now.get(),
            fired: frame.fired.get(),
            wake: frame.wake.get(),
            facts: frame.facts(),
        })
    }

    #[cold]
    fn put_back(&self, frame: &Frame) {
        frame.clock.set(self.clock);
        frame.task.set(self.task);
        frame.now.set(self.now);
        frame.fired.set(self.fired);
        frame.wake.set(self.wake);
        frame.set_facts(&self.facts);
    }
}
