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
//!   frame itself ([`Framing`]). A frame of another clock counts as none.
//!
//! A task spawned by user code has no frame: the deadline does not follow it there. Nor does it follow into what user
//! code polls with a waker of its own (a `FuturesUnordered`): the wake-up of the one timer would not be heard there.

mod call;

use std::{array, cell::Cell, mem, ptr, task::Poll, time::Duration};

pub use self::call::{Call, Framing, Joined, Own};
use crate::time::{Clock, Instant, Source};

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

/// How many tried endpoints a call remembers; the oldest is forgotten first. A power of two, so that finding a place is
/// no division.
const TRIED: usize = 8;

/// What a call knows between two polls.
#[derive(Clone, Copy)]
struct Facts {
    deadline: Instant,
    attempt_ends: Instant,
    since: Instant,
    phase: Phase,
    attempt: u32,
    noted: usize,
    tried: [u32; TRIED],
    spent: [u64; PHASES],
}

/// No clock stands at its origin, so zero is free to mean "not read yet".
const UNREAD: Instant = Instant::from_nanos(0);

/// No frame is open.
const CLOSED: usize = 0;
/// One is, but user code runs, which must not see it.
const HIDDEN: usize = 1;

/// The frame of this thread, field by field: copying all of it for each access would cost more than what it saves.
///
/// What a closed frame holds is worth nothing, so it is neither saved nor put back.
struct Frame {
    /// Which clock's frame is open, or why none is.
    clock: Cell<usize>,
    /// Whose waker the one timer wakes.
    task: Cell<*const ()>,
    now: Cell<Instant>,
    /// Counts completions of user code that emptied `now`, see [`observed`].
    emptied: Cell<u32>,
    timing_out: Cell<bool>,
    fired: Cell<Instant>,
    wake: Cell<Instant>,
    deadline: Cell<Instant>,
    /// When the attempt has to have answered.
    attempt_ends: Cell<Instant>,
    /// Since when the call has been in its phase.
    since: Cell<Instant>,
    phase: Cell<Phase>,
    /// Attempts begun.
    attempt: Cell<u32>,
    /// Endpoints noted as tried, ever.
    noted: Cell<usize>,
    tried: [Cell<u32>; TRIED],
    /// Means nothing before `since` does.
    spent: [Cell<u64>; PHASES],
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
            fired: Cell::new(UNREAD),
            wake: Cell::new(Instant::NEVER),
            deadline: Cell::new(Instant::NEVER),
            attempt_ends: Cell::new(Instant::NEVER),
            since: Cell::new(UNREAD),
            phase: Cell::new(Phase::Attempt),
            attempt: Cell::new(0),
            noted: Cell::new(0),
            tried: [const { Cell::new(0) }; TRIED],
            spent: [const { Cell::new(0) }; PHASES],
        }
    };
}

impl Frame {
    fn is_open(&self) -> bool {
        self.clock.get() > HIDDEN
    }

    /// Begins a call.
    #[inline]
    fn clear(&self) {
        self.deadline.set(Instant::NEVER);
        self.attempt_ends.set(Instant::NEVER);
        self.since.set(UNREAD);
        self.attempt.set(0);
        self.noted.set(0);
    }

    #[inline]
    fn enter(&self, phase: Phase, now: Instant) {
        if self.since.get() == UNREAD {
            self.since.set(now);
            self.phase.set(phase);
            self.spent.iter().for_each(|spent| spent.set(0));
        } else if self.phase.get() != phase {
            self.account(now);
            self.phase.set(phase);
        }
    }

    /// Counts the time until `now` to the phase that the call is in, if it is in any yet.
    #[inline(never)]
    fn account(&self, now: Instant) {
        let since = self.since.replace(now);
        let spent = &self.spent[self.phase.get() as usize];
        spent.set(spent.get() + crate::time::nanos(now.since(since)));
    }

    #[inline]
    fn facts(&self) -> Facts {
        Facts {
            deadline: self.deadline.get(),
            attempt_ends: self.attempt_ends.get(),
            since: self.since.get(),
            phase: self.phase.get(),
            attempt: self.attempt.get(),
            noted: self.noted.get(),
            tried: array::from_fn(|nth| self.tried[nth].get()),
            spent: array::from_fn(|phase| self.spent[phase].get()),
        }
    }

    #[inline]
    fn set_facts(&self, facts: &Facts) {
        self.deadline.set(facts.deadline);
        self.attempt_ends.set(facts.attempt_ends);
        self.since.set(facts.since);
        self.phase.set(facts.phase);
        self.attempt.set(facts.attempt);
        self.noted.set(facts.noted);
        self.tried
            .iter()
            .zip(facts.tried)
            .for_each(|(cell, key)| cell.set(key));
        self.spent
            .iter()
            .zip(facts.spent)
            .for_each(|(cell, time)| cell.set(time));
    }
}

/// The time of this poll: read from `clock` once, then shared by all layers of the call.
#[inline]
pub fn now(clock: &Clock) -> Instant {
    now_by(clock.source())
}

#[inline]
pub(crate) fn now_by(source: &Source) -> Instant {
    FRAME.with(|frame| match frame.now.get() {
        now if now != UNREAD && frame.clock.get() == source.identity() => now,
        _ => {
            let now = read(source);
            if frame.clock.get() == source.identity() {
                frame.now.set(now);
            }
            now
        }
    })
}

// One reading for many looks at it, which are inlined. It knows nothing of the frame: that would be registers to save and
// restore, a fifth of what it costs.
#[inline(never)]
fn read(source: &Source) -> Instant {
    source.now()
}

/// When the call has to be over, if it has a deadline.
pub fn deadline() -> Option<Instant> {
    FRAME.with(|frame| {
        let deadline = frame.deadline.get();
        (frame.is_open() && deadline != Instant::NEVER).then_some(deadline)
    })
}

/// What was left of the deadline of the call, and of its [attempt](attempt_ends), when it last read the clock; nothing if
/// there is neither, or it has not read it.
///
/// With [`attempt`] the one thing of the frame that is seen while it is [hidden](hide): the service of an endpoint tells the
/// other side.
pub fn left() -> Option<Duration> {
    FRAME.with(|frame| {
        let deadline = frame.deadline.get().min(frame.attempt_ends.get());
        let now = frame.now.get();
        let known = frame.clock.get() != CLOSED && deadline != Instant::NEVER && now != UNREAD;
        known.then(|| deadline.since(now))
    })
}

/// Which attempt of the call it is that was begun last, from 1; seen while the frame is [hidden](hide), too. Without a frame
/// every attempt is the first.
pub fn attempt() -> u32 {
    FRAME.with(|frame| match frame.clock.get() {
        CLOSED => 1,
        _ => frame.attempt.get().max(1),
    })
}

/// Says when the attempt that begins has to have answered, whoever sees to that; never, if nobody does.
#[inline]
pub fn attempt_ends(at: Instant) {
    FRAME.with(|frame| {
        if frame.is_open() {
            frame.attempt_ends.set(at);
        }
    });
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
            let noted = frame.noted.get();
            frame.tried[noted % TRIED].set(key);
            frame.noted.set(noted + 1);
        }
    });
}

/// Whether the call was sent to the endpoint with this key before.
pub fn was_tried(key: u32) -> bool {
    FRAME.with(|frame| {
        let noted = frame.noted.get().min(TRIED);
        frame.is_open() && frame.tried[..noted].iter().any(|tried| tried.get() == key)
    })
}

/// Whether this is a retry: an attempt of the call has ended before.
pub fn is_retry() -> bool {
    FRAME.with(|frame| frame.is_open() && frame.attempt.get() > 1)
}

/// Begins an attempt at `now`, and says the how many-th it is; the first is 1. Without a frame every attempt is the
/// first.
#[inline]
pub fn begin_attempt(now: Instant) -> u32 {
    FRAME.with(|frame| {
        if !frame.is_open() {
            return 1;
        }
        frame.enter(Phase::Attempt, now);
        frame.attempt.set(frame.attempt.get() + 1);
        frame.attempt.get()
    })
}

/// Says what the call spends its time on from `now` on.
#[inline]
pub fn enter(phase: Phase, now: Instant) {
    FRAME.with(|frame| {
        if frame.is_open() {
            frame.enter(phase, now);
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
        frame.enter(phase, now);
        frame.account(now);
        let of = |phase: Phase| Duration::from_nanos(frame.spent[phase as usize].get());
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
#[inline]
pub fn hidden<T>(poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
    let hidden = FRAME.with(Hidden::new);
    let out = poll();
    if out.is_pending() {
        hidden.uncover();
    }
    out
}

/// Runs user code that is not polled, but may take its time all the same: as [`hidden`], of whatever comes of it.
#[inline]
pub fn hide<T>(run: impl FnOnce() -> T) -> T {
    let _hidden = FRAME.with(Hidden::new);
    run()
}

/// Dropped also when user code panics; then the time has to be read anew, too.
struct Hidden(usize);

impl Hidden {
    #[inline]
    fn new(frame: &Frame) -> Self {
        let clock = frame.clock.get();
        if clock != CLOSED {
            frame.clock.set(HIDDEN);
        }
        Self(clock)
    }

    #[inline]
    fn uncover(self) {
        FRAME.with(|frame| frame.clock.set(self.0));
        mem::forget(self);
    }
}

impl Drop for Hidden {
    #[inline]
    fn drop(&mut self) {
        FRAME.with(|frame| {
            frame.clock.set(self.0);
            empty(frame);
        });
    }
}

/// Polls a service of which it is not known whether it is the mesh's: it sees the frame, and when it completes and
/// nobody beneath has emptied the frame, the time is read anew.
pub fn observed<T>(poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
    let observed = Observed::begin();
    let out = poll();
    if out.is_ready() {
        observed.completed();
    }
    out
}

/// As [`observed`], in two steps, for who has to take apart what a poll gives anyway: so it is moved once less.
#[derive(Debug)]
#[must_use = "the frame is emptied by `completed`"]
pub struct Observed(u32);

impl Observed {
    /// The service is about to be polled.
    #[inline]
    pub fn begin() -> Self {
        Self(FRAME.with(|frame| frame.emptied.get()))
    }

    /// It has completed.
    #[inline]
    pub fn completed(self) {
        FRAME.with(|frame| {
            if frame.emptied.get() == self.0 {
                empty(frame);
            }
        });
    }
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

#[cfg(test)]
mod tests;
