//! What the layers of one call tell each other while it is polled: the time, the deadline, the wished wake-up, the
//! endpoints already tried.
//!
//! The outermost layer opens a frame round each `poll` ([`Call::poll`]); layers beneath read and write it through the
//! functions of this module. Nothing travels in request extensions (a first insert allocates three times), no layer
//! reads the clock for itself (a read is dearer than most layers), and a call has one timer however many layers wish to
//! be woken.
//!
//! - **Time.** The frame is empty when it opens. The first [`now`] reads the clock, the rest of that poll shares the
//!   reading. [`hidden`] empties it again when user code completes, since that may have taken its time: a call that
//!   completes reads the clock exactly twice.
//! - **Wake-ups.** A layer that waits says so with [`wake_at`] in each poll; the outermost arms one timer for the
//!   nearest. When it fires, [`fired`] tells every layer whose time has come, without another read.
//! - **Facts** (deadline, tried endpoints, where the time went) live in the outermost future and are swapped in for
//!   each poll, so they survive a move to another thread. They end with the call.
//! - **Alone.** Without a frame [`now`] reads the clock, there is no deadline, and a layer that needs a timer opens a
//!   frame itself ([`Call::poll_joined`]). A frame of another clock counts as none.
//!
//! A task spawned by user code has no frame: the deadline does not follow it there. Nor does it follow into what user
//! code polls with a waker of its own (a `FuturesUnordered`): the wake-up of the one timer would not be heard there.

use std::{
    cell::Cell,
    mem,
    pin::Pin,
    ptr,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;

use crate::time::{Clock, Instant, Sleep};

/// What a call spends its time on, as far as the mesh can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Phase {
    /// An endpoint works on it.
    #[default]
    Attempt,
    /// It waits for the first answer of the registry.
    Discovery,
    /// It waits for a permit.
    Queue,
    /// It waits before the next attempt.
    Backoff,
}

const PHASES: usize = 4;

/// Where the time of a call went, see [`spent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Spent {
    /// Waiting for endpoints to answer, all attempts together.
    pub attempts: Duration,
    /// Waiting for the first answer of the registry.
    pub discovery: Duration,
    /// Waiting for a permit.
    pub queue: Duration,
    /// Waiting between attempts.
    pub backoff: Duration,
    /// Attempts begun.
    pub attempt: u32,
    /// What it was waiting for last.
    pub phase: Phase,
}

/// How many tried endpoints a call remembers; the oldest is forgotten first.
const TRIED: usize = 6;

#[derive(Clone, Copy)]
struct Facts {
    deadline: Instant,
    fired: Instant,
    wake: Instant,
    tried: [u32; TRIED],
    attempt: u32,
    phase: Phase,
    since: Instant,
    spent: [u64; PHASES],
}

const NO_FACTS: Facts = Facts {
    deadline: Instant::NEVER,
    fired: Instant::from_nanos(0),
    wake: Instant::NEVER,
    tried: [0; TRIED],
    attempt: 0,
    phase: Phase::Attempt,
    since: UNREAD,
    spent: [0; PHASES],
};

/// No clock stands at its origin, so zero is free to mean "not read yet".
const UNREAD: Instant = Instant::from_nanos(0);

/// Which clock's frame is open; zero for none, or hidden from user code.
const CLOSED: usize = 0;

/// The frame of this thread, field by field: copying all of it for each access would cost more than what it saves.
struct Frame {
    clock: Cell<usize>,
    /// Whose waker the one timer wakes.
    task: Cell<*const ()>,
    now: Cell<Instant>,
    /// Counts completions of user code that emptied `now`, see [`observed`].
    emptied: Cell<u32>,
    timing_out: Cell<bool>,
    deadline: Cell<Instant>,
    fired: Cell<Instant>,
    wake: Cell<Instant>,
    tried: Cell<[u32; TRIED]>,
    attempt: Cell<u32>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    spent: Cell<[u64; PHASES]>,
}

thread_local! {
    // Copy cells only: nothing here needs a destructor, so no access checks for one.
    static FRAME: Frame = const {
        Frame {
            clock: Cell::new(CLOSED),
            task: Cell::new(ptr::null()),
            now: Cell::new(UNREAD),
            emptied: Cell::new(0),
            timing_out: Cell::new(false),
            deadline: Cell::new(NO_FACTS.deadline),
            fired: Cell::new(NO_FACTS.fired),
            wake: Cell::new(NO_FACTS.wake),
            tried: Cell::new(NO_FACTS.tried),
            attempt: Cell::new(0),
            phase: Cell::new(NO_FACTS.phase),
            since: Cell::new(NO_FACTS.since),
            spent: Cell::new(NO_FACTS.spent),
        }
    };
}

impl Frame {
    fn is_open(&self) -> bool {
        self.clock.get() != CLOSED
    }

    fn facts(&self) -> Facts {
        Facts {
            deadline: self.deadline.get(),
            fired: self.fired.get(),
            wake: self.wake.get(),
            tried: self.tried.get(),
            attempt: self.attempt.get(),
            phase: self.phase.get(),
            since: self.since.get(),
            spent: self.spent.get(),
        }
    }

    fn set_facts(&self, facts: &Facts) {
        self.deadline.set(facts.deadline);
        self.fired.set(facts.fired);
        self.wake.set(facts.wake);
        self.tried.set(facts.tried);
        self.attempt.set(facts.attempt);
        self.phase.set(facts.phase);
        self.since.set(facts.since);
        self.spent.set(facts.spent);
    }
}

/// The time of this poll: read from `clock` once, then shared by all layers of the call.
#[inline]
pub fn now(clock: &Clock) -> Instant {
    FRAME.with(|frame| match frame.now.get() {
        now if now != UNREAD && frame.clock.get() == clock.identity() => now,
        _ => read(frame, clock),
    })
}

#[inline(never)] // One reading for many looks at it, which are inlined.
fn read(frame: &Frame, clock: &Clock) -> Instant {
    let now = clock.now();
    if frame.clock.get() == clock.identity() {
        frame.now.set(now);
    }
    now
}

/// When the call has to be over, if it has a deadline.
pub fn deadline() -> Option<Instant> {
    FRAME.with(|frame| {
        let deadline = frame.deadline.get();
        (frame.is_open() && deadline != Instant::NEVER).then_some(deadline)
    })
}

/// Brings the deadline of the call forward to `at`; it never moves back. Answers the deadline that holds.
pub fn shorten_deadline(at: Instant) -> Instant {
    FRAME.with(|frame| {
        if !frame.is_open() {
            return at;
        }
        frame.deadline.set(frame.deadline.get().min(at));
        frame.deadline.get()
    })
}

/// Runs `step` with the deadline of the call brought forward to `at`; after it, the one before holds again.
///
/// For a limit on a part of the call: an attempt, or one of several calls that user code makes under the same frame.
pub fn within<T>(at: Instant, step: impl FnOnce() -> T) -> T {
    struct Restore(Instant);

    impl Drop for Restore {
        fn drop(&mut self) {
            FRAME.with(|frame| frame.deadline.set(self.0));
        }
    }

    let _restore = Restore(FRAME.with(|frame| frame.deadline.get()));
    shorten_deadline(at);
    step()
}

/// Wishes to be polled again at `at`, if the call is still pending then. A wish holds for this poll only.
pub fn wake_at(at: Instant) {
    FRAME.with(|frame| {
        if frame.is_open() {
            frame.wake.set(frame.wake.get().min(at));
        }
    });
}

/// Whether the call's timer has fired for `at` or something later.
pub fn fired(at: Instant) -> bool {
    FRAME.with(|frame| frame.is_open() && frame.fired.get() >= at)
}

/// Notes that the call has been sent to the endpoint with this key, so that its next attempt prefers another.
pub fn mark_tried(key: u32) {
    FRAME.with(|frame| {
        if frame.is_open() {
            let mut tried = frame.tried.get();
            tried.copy_within(..TRIED - 1, 1);
            tried[0] = key;
            frame.tried.set(tried);
        }
    });
}

/// Whether the call was sent to the endpoint with this key before.
pub fn was_tried(key: u32) -> bool {
    FRAME.with(|frame| frame.is_open() && frame.tried.get().contains(&key))
}

/// Whether this is a retry: an attempt of the call has ended before.
pub fn is_retry() -> bool {
    FRAME.with(|frame| frame.is_open() && frame.attempt.get() > 1)
}

/// Counts an attempt that begins; the first is 1. Without a frame every attempt is the first.
pub fn begin_attempt() -> u32 {
    FRAME.with(|frame| {
        if !frame.is_open() {
            return 1;
        }
        frame.attempt.set(frame.attempt.get().saturating_add(1));
        frame.attempt.get()
    })
}

/// Says what the call spends its time on from `now` on.
pub fn enter(phase: Phase, now: Instant) {
    FRAME.with(|frame| {
        if frame.is_open() {
            let since = frame.since.replace(now);
            let before = frame.phase.replace(phase);
            if since != UNREAD {
                let mut spent = frame.spent.get();
                spent[before as usize] += crate::time::nanos(now.since(since));
                frame.spent.set(spent);
            }
        }
    });
}

/// Where the time of the call went, until `now`.
pub fn spent(now: Instant) -> Spent {
    FRAME.with(|frame| {
        if !frame.is_open() {
            return Spent::default();
        }
        let phase = frame.phase.get();
        enter(phase, now);
        let spent = frame.spent.get();
        let of = |phase: Phase| Duration::from_nanos(spent[phase as usize]);
        Spent {
            attempts: of(Phase::Attempt),
            discovery: of(Phase::Discovery),
            queue: of(Phase::Queue),
            backoff: of(Phase::Backoff),
            attempt: frame.attempt.get(),
            phase,
        }
    })
}

/// Polls user code: it sees no frame, and when it completes the time is read anew.
///
/// The layer directly above a service that is not the mesh's wraps its poll in this.
pub fn hidden<T>(poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
    /// Also restores when `poll` panics; then the time has to be read anew, too.
    struct Hidden {
        clock: usize,
        pending: bool,
    }

    impl Drop for Hidden {
        fn drop(&mut self) {
            FRAME.with(|frame| {
                frame.clock.set(self.clock);
                if !self.pending {
                    empty(frame);
                }
            });
        }
    }

    let mut hidden = Hidden {
        clock: FRAME.with(|frame| frame.clock.replace(CLOSED)),
        pending: false,
    };
    let out = poll();
    hidden.pending = out.is_pending();
    out
}

/// Polls a service of which it is not known whether it is the mesh's: it sees the frame, and when it completes and
/// nobody beneath has emptied the frame, the time is read anew.
pub fn observed<T>(poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
    let before = FRAME.with(|frame| frame.emptied.get());
    let out = poll();
    if out.is_ready() {
        FRAME.with(|frame| {
            if frame.emptied.get() == before {
                empty(frame);
            }
        });
    }
    out
}

fn empty(frame: &Frame) {
    frame.now.set(UNREAD);
    frame.emptied.set(frame.emptied.get().wrapping_add(1));
}

/// Runs `abandon`, which drops an attempt because its time is up: guards dropped meanwhile record a timeout, where they
/// would otherwise record that the caller went away.
pub fn timing_out<T>(abandon: impl FnOnce() -> T) -> T {
    struct Restore(bool);

    impl Drop for Restore {
        fn drop(&mut self) {
            FRAME.with(|frame| frame.timing_out.set(self.0));
        }
    }

    let _restore = Restore(FRAME.with(|frame| frame.timing_out.replace(true)));
    abandon()
}

/// Whether a guard that is dropped now is dropped because the time is up.
pub fn is_timing_out() -> bool {
    FRAME.with(|frame| frame.timing_out.get())
}

pin_project! {
    /// The facts and the one timer of a call; part of each future that may be the outermost of the mesh.
    ///
    /// # Cancel safety
    ///
    /// Dropping it cancels the timer.
    pub struct Call {
        // None until it is pending in a frame of its own: a layer beneath another never needs any.
        facts: Option<Facts>,
        #[pin]
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
        let mut this = self.project();
        loop {
            let facts = {
                let opened = Opened::new(clock, cx, this.facts.as_ref().unwrap_or(&NO_FACTS));
                let out = step(cx);
                if out.is_ready() {
                    return out;
                }
                this.facts.insert(opened.facts())
            };
            let at = mem::replace(&mut facts.wake, Instant::NEVER);
            if at == Instant::NEVER || poll_timer(this.timer.as_mut(), clock, at, cx).is_pending() {
                return Poll::Pending;
            }
            facts.fired = at;
        }
    }

    /// Polls `step` in the frame that is open, or else in one of its own.
    ///
    /// A frame counts as open only if its timer wakes the task in `cx`.
    pub fn poll_joined<T>(
        self: Pin<&mut Self>,
        clock: &Clock,
        cx: &mut Context<'_>,
        mut step: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // The data of a waker tells tasks apart well enough: combinators that poll with wakers of their own allocate it.
        let task = cx.waker().data();
        let joins = |frame: &Frame| {
            frame.clock.get() == clock.identity() && ptr::eq(frame.task.get(), task)
        };
        if FRAME.with(joins) {
            step(cx)
        } else {
            self.poll(clock, cx, step)
        }
    }
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
    mut timer: Pin<&mut Option<Sleep>>,
    clock: &Clock,
    at: Instant,
    cx: &mut Context<'_>,
) -> Poll<()> {
    match timer.as_mut().as_pin_mut() {
        None => timer.set(Some(clock.sleep_until(at))),
        Some(sleep) if sleep.deadline() != at => sleep.reset(at),
        Some(_) => {}
    }
    match timer.as_pin_mut() {
        Some(sleep) => std::future::Future::poll(sleep, cx),
        None => Poll::Pending,
    }
}

/// An open frame; dropping it puts back what was there, also on panic.
struct Opened {
    clock: usize,
    task: *const (),
    now: Instant,
    timing_out: bool,
    facts: Facts,
}

impl Opened {
    fn new(clock: &Clock, cx: &Context<'_>, facts: &Facts) -> Self {
        FRAME.with(|frame| {
            let outer = Self {
                clock: frame.clock.replace(clock.identity()),
                task: frame.task.replace(cx.waker().data()),
                now: frame.now.replace(UNREAD),
                timing_out: frame.timing_out.replace(false),
                facts: frame.facts(),
            };
            frame.set_facts(facts);
            outer
        })
    }

    fn facts(&self) -> Facts {
        FRAME.with(Frame::facts)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        FRAME.with(|frame| {
            frame.clock.set(self.clock);
            frame.task.set(self.task);
            frame.now.set(self.now);
            frame.timing_out.set(self.timing_out);
            frame.set_facts(&self.facts);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        panic,
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        task::{Wake, Waker},
    };

    use super::*;

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn a_call_that_completes_reads_the_clock_twice_however_many_layers_ask() {
        let (clock, handle) = Clock::manual();
        let call = pin!(Call::new());
        let out = call.poll(&clock, &mut cx(), |_| {
            let start = now(&clock);
            assert_eq!(now(&clock), start);
            assert!(
                hidden(|| {
                    handle.advance(Duration::from_millis(7));
                    Poll::Ready(())
                })
                .is_ready()
            );
            assert_eq!(now(&clock).since(start), Duration::from_millis(7));
            assert_eq!(now(&clock).since(start), Duration::from_millis(7));
            Poll::Ready(())
        });
        assert!(out.is_ready());
        assert_eq!(handle.reads(), 2);
    }

    #[test]
    fn pending_user_code_does_not_cost_another_read() {
        let (clock, handle) = Clock::manual();
        let call = pin!(Call::new());
        let out: Poll<()> = call.poll(&clock, &mut cx(), |_| {
            now(&clock);
            let out = hidden(|| Poll::Pending);
            now(&clock);
            out
        });
        assert!(out.is_pending());
        assert_eq!(handle.reads(), 1);
    }

    #[test]
    fn observed_reads_anew_only_if_nobody_beneath_has() {
        let (clock, handle) = Clock::manual();
        let call = pin!(Call::new());
        let _ = call.poll(&clock, &mut cx(), |_| {
            now(&clock);
            let _ = observed(|| {
                let out = hidden(|| Poll::Ready(()));
                now(&clock);
                out
            });
            now(&clock);
            assert_eq!(handle.reads(), 2, "a mesh layer beneath had read");
            let _ = observed(|| Poll::Ready(()));
            now(&clock);
            Poll::Ready(())
        });
        assert_eq!(handle.reads(), 3, "user code directly beneath had not");
    }

    #[test]
    fn without_a_frame_every_function_is_harmless() {
        let (clock, handle) = Clock::manual();
        now(&clock);
        now(&clock);
        assert_eq!(handle.reads(), 2);
        wake_at(Instant::from_nanos(1));
        mark_tried(3);
        assert_eq!(deadline(), None);
        assert_eq!(
            shorten_deadline(Instant::from_nanos(9)),
            Instant::from_nanos(9)
        );
        assert_eq!(deadline(), None);
        assert!(!was_tried(3) && !fired(Instant::from_nanos(0)));
        assert_eq!(begin_attempt(), 1);
        assert_eq!(begin_attempt(), 1);
    }

    #[test]
    fn the_nearest_wish_arms_the_one_timer_and_firing_polls_again_without_a_read() {
        let (clock, handle) = Clock::manual();
        let start = clock.now();
        let reads = handle.reads();
        let at = start + Duration::from_secs(1);
        let mut call = pin!(Call::new());
        let mut step = |_: &mut Context<'_>| {
            wake_at(start + Duration::from_secs(5));
            wake_at(at);
            if fired(at) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        };
        assert!(
            call.as_mut()
                .poll(&clock, &mut cx(), &mut step)
                .is_pending()
        );
        assert!(
            call.as_mut()
                .poll(&clock, &mut cx(), &mut step)
                .is_pending()
        );
        assert_eq!((handle.timers(), handle.timers_registered()), (1, 1));
        handle.advance(Duration::from_secs(1));
        assert!(call.as_mut().poll(&clock, &mut cx(), &mut step).is_ready());
        assert_eq!(handle.reads(), reads);
    }

    #[test]
    fn facts_live_as_long_as_the_call_and_user_code_sees_none() {
        let (clock, _) = Clock::manual();
        let at = clock.now() + Duration::from_secs(1);
        let mut call = pin!(Call::new());
        let first: Poll<()> = call.as_mut().poll(&clock, &mut cx(), |_| {
            shorten_deadline(at);
            shorten_deadline(Instant::NEVER);
            mark_tried(42);
            begin_attempt();
            hidden(|| {
                assert_eq!(deadline(), None);
                assert!(!was_tried(42));
                Poll::Pending
            })
        });
        assert!(first.is_pending());
        assert_eq!(deadline(), None);
        let _ = call.poll(&clock, &mut cx(), |_| {
            assert_eq!(deadline(), Some(at));
            assert!(was_tried(42));
            assert_eq!(begin_attempt(), 2);
            assert!(is_retry());
            Poll::Ready(())
        });
    }

    #[test]
    fn a_deadline_for_a_part_of_the_call_ends_with_that_part_even_by_panic() {
        let (clock, _) = Clock::manual();
        let at = clock.now() + Duration::from_secs(1);
        let near = at - Duration::from_millis(1);
        let _ = pin!(Call::new()).poll(&clock, &mut cx(), |_| {
            shorten_deadline(at);
            within(near, || assert_eq!(deadline(), Some(near)));
            assert_eq!(deadline(), Some(at));
            within(Instant::NEVER, || assert_eq!(deadline(), Some(at)));
            let part = || within(near, || panic!("user code"));
            assert!(panic::catch_unwind(part).is_err());
            assert_eq!(deadline(), Some(at));
            Poll::Ready(())
        });
        within(near, || assert_eq!(deadline(), None));
    }

    #[test]
    fn a_call_inside_user_code_is_a_call_of_its_own() {
        let (clock, _) = Clock::manual();
        let at = clock.now() + Duration::from_secs(1);
        let outer = pin!(Call::new());
        let _ = outer.poll(&clock, &mut cx(), |_| {
            shorten_deadline(at);
            let out = hidden(|| {
                pin!(Call::new()).poll_joined(&clock, &mut cx(), |_| {
                    assert_eq!(deadline(), None);
                    shorten_deadline(at - Duration::from_millis(1));
                    Poll::Ready(())
                })
            });
            assert_eq!(deadline(), Some(at));
            out
        });
    }

    #[test]
    fn what_is_polled_with_a_waker_of_its_own_has_a_timer_of_its_own() {
        #[derive(Default)]
        struct Other(AtomicBool);

        impl Wake for Other {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }

        let (clock, handle) = Clock::manual();
        let at = clock.now() + Duration::from_secs(1);
        let other = Arc::new(Other::default());
        let waker = Waker::from(Arc::clone(&other));
        let (mut above, mut beneath) = (pin!(Call::new()), pin!(Call::new()));
        let _: Poll<()> = above.as_mut().poll(&clock, &mut cx(), |_| {
            let mut cx = Context::from_waker(&waker);
            beneath.as_mut().poll_joined(&clock, &mut cx, |_| {
                wake_at(at);
                Poll::Pending
            })
        });
        handle.advance(Duration::from_secs(1));
        assert!(other.0.load(Ordering::Relaxed));
    }

    #[test]
    fn a_frame_of_another_clock_is_ignored() {
        let (clock, handle) = Clock::manual();
        let (other, other_handle) = Clock::manual();
        let _ = pin!(Call::new()).poll(&clock, &mut cx(), |_| {
            now(&clock);
            now(&other);
            now(&other);
            pin!(Call::new()).poll_joined(&other, &mut cx(), |_| {
                now(&other);
                Poll::Ready(now(&other))
            })
        });
        assert_eq!((handle.reads(), other_handle.reads()), (1, 3));
    }

    #[test]
    fn a_panic_restores_what_was_open() {
        let (clock, _) = Clock::manual();
        let seen = RefCell::new(None);
        let _ = pin!(Call::new()).poll(&clock, &mut cx(), |_| {
            shorten_deadline(Instant::from_nanos(u64::MAX - 1));
            let caught = panic::catch_unwind(panic::AssertUnwindSafe(|| {
                let _: Poll<()> = hidden(|| {
                    pin!(Call::new()).poll(&clock, &mut cx(), |_| {
                        timing_out(|| panic!("user code"));
                        Poll::Ready(())
                    })
                });
            }));
            assert!(caught.is_err());
            *seen.borrow_mut() = deadline();
            assert!(!is_timing_out());
            Poll::Ready(())
        });
        assert_eq!(*seen.borrow(), Some(Instant::from_nanos(u64::MAX - 1)));
        assert_eq!(deadline(), None);
    }

    #[test]
    fn the_time_of_a_call_is_told_by_phase() {
        let (clock, handle) = Clock::manual();
        let _ = pin!(Call::new()).poll(&clock, &mut cx(), |_| {
            let ms = Duration::from_millis;
            enter(Phase::Queue, clock.now());
            handle.advance(ms(5));
            enter(Phase::Attempt, clock.now());
            begin_attempt();
            handle.advance(ms(20));
            enter(Phase::Backoff, clock.now());
            handle.advance(ms(3));
            let spent = spent(clock.now());
            assert_eq!(
                (
                    spent.queue,
                    spent.attempts,
                    spent.backoff,
                    spent.attempt,
                    spent.phase
                ),
                (ms(5), ms(20), ms(3), 1, Phase::Backoff)
            );
            Poll::Ready(())
        });
    }
}
