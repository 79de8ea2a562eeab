//! Timers that all calls of a mesh share: a call that ends in time costs two short critical sections of its thread's
//! own shard, and no timer of the runtime.
//!
//! Nearly every timer is cancelled, so nothing is kept in order: a shard knows a time before which none of its timers
//! fires, and looks through them when that has come. With timeouts much longer than calls take that is once in a
//! timeout.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use slab::Slab;

use super::{Instant, clock::Source};
use crate::sync::{AtomicU64, Mutex, Ordering, Padded, lock, thread_number};

/// The timers of a clock.
///
/// It is never freed but used again by another clock ([`Queue::take`]): a clock is copied in every call, and a count of
/// who holds it would be the one word that all processors write.
pub(super) struct Queue {
    shards: Box<[Padded<Mutex<Timers>>]>,
    alarm: Alarm,
}

struct Timers {
    /// Whether somebody fires them.
    driven: bool,
    /// None fires before it.
    nearest: Instant,
    slots: Slab<Timer>,
}

struct Timer {
    at: Instant,
    /// None once it has been woken.
    waker: Option<Waker>,
    fired: bool,
}

/// What wakes the driver.
struct Alarm {
    /// When the driver looks again. It is never later than what a shard says that the driver has seen: who adds a timer
    /// that fires earlier than this wakes the driver.
    next: AtomicU64,
    driver: Mutex<Option<Waker>>,
}

/// `next` while the driver looks, and while no timer waits.
const NONE: u64 = u64::MAX;

/// Looking through the timers takes a processor no more of its time than one in so many.
const SHARE: u32 = 20;

/// As many as threads that meet: more cost the driver a lock each, fewer make calls wait for each other.
const MAX_SHARDS: usize = 16;

impl Queue {
    /// A queue without a driver: one that is unused, if there is any.
    #[cfg(not(mesh_loom))]
    fn take() -> &'static Self {
        let unused = lock(&UNUSED).pop();
        unused.unwrap_or_else(|| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            Self::leak((2 * threads).next_power_of_two().min(MAX_SHARDS))
        })
    }

    #[cfg(mesh_loom)]
    fn take() -> &'static Self {
        Self::leak(MAX_SHARDS)
    }

    /// Keeps it for the next clock.
    fn give_back(&'static self) {
        #[cfg(not(mesh_loom))]
        lock(&UNUSED).push(self);
    }

    fn leak(shards: usize) -> &'static Self {
        Box::leak(Box::new(Self::new(shards)))
    }
}

/// The queues that no driver runs for any more. Timers may still wait in them, and go on under the next driver.
#[cfg(not(mesh_loom))]
static UNUSED: Mutex<Vec<&'static Queue>> = Mutex::new(Vec::new());

impl Queue {
    fn new(shards: usize) -> Self {
        let shard = || Timers {
            driven: false,
            nearest: Instant::NEVER,
            slots: Slab::new(),
        };
        Self {
            shards: (0..shards).map(|_| Padded(Mutex::new(shard()))).collect(),
            alarm: Alarm {
                next: AtomicU64::new(NONE),
                driver: Mutex::new(None),
            },
        }
    }

    /// A place in this thread's shard.
    pub(super) fn place(&'static self) -> Place {
        Place {
            queue: self,
            // As many shards as a power of two, and so no division.
            shard: thread_number() & (self.shards.len() - 1),
            slot: None,
        }
    }

    /// Fires what is due at `now`; answers when to look again.
    fn look(&self, now: Instant) -> Instant {
        // Before the shards are read: who adds a timer to one that has been read finds this, and wakes the driver.
        self.alarm.next.store(NONE, Ordering::SeqCst);
        let mut due = Vec::new();
        let mut next = Instant::NEVER;
        for shard in &self.shards {
            next = next.min(lock(&shard.0).fire(now, &mut due));
        }
        self.alarm.next.store(next.as_nanos(), Ordering::SeqCst);
        // Outside of the locks: a waker is user code.
        due.into_iter().for_each(Waker::wake);
        next
    }

    /// Wakes whoever waits, so that each looks for another timer.
    fn abandon(&self) {
        for shard in &self.shards {
            let mut waiting = Vec::new();
            let mut timers = lock(&shard.0);
            timers.driven = false;
            for (_, timer) in &mut timers.slots {
                waiting.extend(timer.waker.take());
            }
            drop(timers);
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

impl Timers {
    /// Fires what is due at `now`; answers when the next is.
    fn fire(&mut self, now: Instant, due: &mut Vec<Waker>) -> Instant {
        self.driven = true;
        if self.nearest > now {
            return self.nearest;
        }
        self.nearest = Instant::NEVER;
        for (_, timer) in &mut self.slots {
            if timer.at > now {
                self.nearest = self.nearest.min(timer.at);
            } else {
                timer.fired = true;
                due.extend(timer.waker.take());
            }
        }
        self.nearest
    }
}

impl Alarm {
    /// A timer was added that fires at `at`.
    #[inline]
    fn added(&self, at: Instant) {
        if at.as_nanos() < self.next.load(Ordering::SeqCst) {
            self.ring(at);
        }
    }

    #[cold]
    fn ring(&self, at: Instant) {
        self.next.fetch_min(at.as_nanos(), Ordering::SeqCst);
        let waker = lock(&self.driver).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Notes whom to wake.
    fn listen(&self, waker: &Waker) {
        let old = lock(&self.driver).replace(waker.clone());
        drop(old); // Outside of the lock: a waker is user code.
    }
}

/// A timer's place in the queue; dropping it cancels the timer.
pub(super) struct Place {
    queue: &'static Queue,
    shard: usize,
    slot: Option<usize>,
}

/// How a timer stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Queued {
    Fired,
    Waits,
    /// The driver is gone.
    Abandoned,
}

impl Place {
    pub(super) fn poll(&mut self, at: Instant, cx: &mut Context<'_>) -> Queued {
        let alarm = &self.queue.alarm;
        let mut timers = lock(&self.queue.shards[self.shard].0);
        let abandoned = !timers.driven;
        match self.slot {
            Some(slot) => {
                let timer = &mut timers.slots[slot];
                if timer.fired {
                    return Queued::Fired;
                }
                if abandoned {
                    return Queued::Abandoned;
                }
                let old = match &timer.waker {
                    Some(waker) if waker.will_wake(cx.waker()) => None,
                    _ => timer.waker.replace(cx.waker().clone()),
                };
                drop(timers);
                drop(old);
                Queued::Waits
            }
            None if abandoned => Queued::Abandoned,
            None => {
                timers.nearest = timers.nearest.min(at);
                self.slot = Some(timers.slots.insert(Timer {
                    at,
                    waker: Some(cx.waker().clone()),
                    fired: false,
                }));
                drop(timers);
                alarm.added(at);
                Queued::Waits
            }
        }
    }

    /// Cancels the timer.
    pub(super) fn leave(&mut self) {
        if let Some(slot) = self.slot.take() {
            let timer = lock(&self.queue.shards[self.shard].0).slots.remove(slot);
            drop(timer); // Outside of the lock: a waker is user code.
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Fires the timers of a [`Clock::system`](super::Clock::system). It never completes.
///
/// # Cancel safety
///
/// Dropping it hands the timers that still wait over to tokio: none is lost.
#[must_use = "no timer is shared unless it is polled"]
pub struct TimerDriver {
    source: Source,
    queue: &'static Queue,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl TimerDriver {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            queue: Queue::take(),
            sleep: None,
        }
    }

    pub(super) fn queue(&self) -> &'static Queue {
        self.queue
    }

    /// Looks through the timers; answers when to do so again.
    fn look(&self) -> Instant {
        let now = self.source.now();
        let next = self.queue.look(now);
        again(next, now, self.source.now())
    }
}

/// When the timers are looked through again, of which the `next` fires then: not before a pause in proportion to how long
/// looking took, from `began` to `ended`.
fn again(next: Instant, began: Instant, ended: Instant) -> Instant {
    if next == Instant::NEVER {
        return next;
    }
    next.max(ended + ended.since(began) * SHARE)
}

impl Future for TimerDriver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.queue.alarm.listen(cx.waker());
            let next = self.look();
            if next == Instant::NEVER {
                return Poll::Pending;
            }
            let until = self.source.tokio_instant(next);
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            sleep.as_mut().reset(until);
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for TimerDriver {
    fn drop(&mut self) {
        self.queue.abandon();
        self.queue.give_back();
    }
}

impl fmt::Debug for TimerDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerDriver").finish_non_exhaustive()
    }
}

#[cfg(all(test, mesh_loom))]
mod models;
#[cfg(all(test, not(mesh_loom)))]
mod tests;
