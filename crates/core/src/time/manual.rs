//! A clock that is moved by hand.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::{Instant, clock::ORIGIN};

/// Moves a [`Clock::manual`](super::Clock::manual) and fires its timers.
#[derive(Clone)]
pub struct ManualClock(Arc<Manual>);

pub(super) type Key = (Instant, u64);

pub(crate) struct Manual {
    now: AtomicU64,
    reads: AtomicU64,
    timers: Mutex<Timers>,
}

#[derive(Default)]
struct Timers {
    next: u64,
    waiting: BTreeMap<Key, Waker>,
}

impl ManualClock {
    pub(super) fn new(clock: Arc<Manual>) -> Self {
        Self(clock)
    }

    /// Moves the clock on by `by` and wakes what has become due, the earliest first.
    pub fn advance(&self, by: Duration) {
        self.advance_to(Instant::from_nanos(self.0.now.load(Ordering::Acquire)) + by);
    }

    /// Moves the clock on to `at` (never back) and wakes what has become due, the earliest first.
    pub fn advance_to(&self, at: Instant) {
        self.0.now.fetch_max(at.as_nanos(), Ordering::AcqRel);
        loop {
            // One at a time and outside the lock: a waker is user code.
            let due = {
                let mut timers = self.0.timers();
                match timers.waiting.first_key_value() {
                    Some(((when, _), _)) if *when <= at => timers.waiting.pop_first(),
                    _ => None,
                }
            };
            match due {
                Some((_, waker)) => waker.wake(),
                None => return,
            }
        }
    }

    /// When the next timer fires, if any waits.
    pub fn next_timer(&self) -> Option<Instant> {
        self.0.timers().waiting.keys().next().map(|(at, _)| *at)
    }

    /// How many timers wait.
    pub fn timers(&self) -> usize {
        self.0.timers().waiting.len()
    }

    /// How many timers were ever registered.
    pub fn timers_registered(&self) -> u64 {
        self.0.timers().next
    }

    /// How often the clock was read.
    pub fn reads(&self) -> u64 {
        self.0.reads.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock")
            .field(
                "now",
                &Instant::from_nanos(self.0.now.load(Ordering::Relaxed)),
            )
            .finish_non_exhaustive()
    }
}

impl Manual {
    pub(super) fn new() -> Self {
        Self {
            now: AtomicU64::new(ORIGIN.as_nanos()),
            reads: AtomicU64::new(0),
            timers: Mutex::default(),
        }
    }

    pub(super) fn read(&self) -> Instant {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Instant::from_nanos(self.now.load(Ordering::Acquire))
    }

    fn timers(&self) -> MutexGuard<'_, Timers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn poll(
        &self,
        at: Instant,
        key: &mut Option<Key>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        // The lock is taken before the time is read, so that `advance_to` either sees this timer or is seen by it.
        let mut timers = self.timers();
        let old = key.take();
        let replaced = old.and_then(|key| timers.waiting.remove(&key));
        if self.now.load(Ordering::Acquire) >= at.as_nanos() {
            drop(timers);
            drop(replaced);
            return Poll::Ready(());
        }
        // A re-poll keeps its place: same key, newer waker.
        let new = match old {
            Some((_, number)) => (at, number),
            None => {
                timers.next += 1;
                (at, timers.next)
            }
        };
        timers.waiting.insert(new, cx.waker().clone());
        *key = Some(new);
        drop(timers);
        drop(replaced);
        Poll::Pending
    }

    pub(super) fn forget(&self, key: Option<Key>) {
        let waker = key.and_then(|key| self.timers().waiting.remove(&key));
        drop(waker); // Outside the lock: dropping a waker may run user code.
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Clock;

    #[test]
    fn a_manual_clock_fires_in_order_and_forgets_dropped_timers() {
        let (clock, handle) = Clock::manual();
        let start = clock.now();
        let mut near = Box::pin(clock.sleep_until(start + Duration::from_secs(1)));
        let mut far = Box::pin(clock.sleep_until(start + Duration::from_secs(2)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Future::poll(far.as_mut(), &mut cx).is_pending());
        assert!(Future::poll(near.as_mut(), &mut cx).is_pending());
        assert_eq!(handle.next_timer(), Some(start + Duration::from_secs(1)));
        handle.advance(Duration::from_secs(1));
        assert!(Future::poll(near.as_mut(), &mut cx).is_ready());
        assert!(Future::poll(far.as_mut(), &mut cx).is_pending());
        assert_eq!(handle.timers(), 1);
        drop(far);
        assert_eq!(handle.timers(), 0);
        assert_eq!(handle.timers_registered(), 2);
    }

    #[test]
    fn polling_again_refreshes_the_waker_of_a_manual_timer() {
        let (clock, handle) = Clock::manual();
        let mut sleep = tokio_test::task::spawn(clock.sleep(Duration::from_secs(1)));
        assert!(sleep.poll().is_pending());
        assert!(sleep.poll().is_pending());
        assert_eq!(handle.timers(), 1);
        handle.advance(Duration::from_secs(1));
        assert!(sleep.is_woken());
        assert!(sleep.poll().is_ready());
    }
}
