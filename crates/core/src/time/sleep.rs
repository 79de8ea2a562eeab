//! Waiting for a point in time.

use std::{
    cell::RefCell,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    Instant,
    clock::Source,
    manual::{Key, Manual},
    queue::{Place, Queue, Queued},
};

/// Waits for a point in time; made by [`Clock::sleep_until`](super::Clock::sleep_until).
pub struct Sleep {
    at: Instant,
    /// None only while it is dropped.
    timer: Option<Timer>,
}

enum Timer {
    Tokio(TokioSleep, Source),
    Queued(Place, Source),
    Manual(Arc<Manual>, Option<Key>),
}

/// On the heap, as it must not move; its place there is used again, see [`UNUSED`].
type TokioSleep = Pin<Box<Option<tokio::time::Sleep>>>;

/// How many places a thread keeps.
const MOST_UNUSED: usize = 256;

thread_local! {
    /// Places of tokio's timers that are over. Kept in the futures of calls they would make those three times as large,
    /// and dropping each of them, timer or none, dearer than what else a layer does.
    static UNUSED: RefCell<Vec<TokioSleep>> = const { RefCell::new(Vec::new()) };
}

impl Timer {
    fn tokio(at: Instant, source: &Source) -> Self {
        let unused = UNUSED.try_with(|unused| unused.borrow_mut().pop());
        let mut place = unused.ok().flatten().unwrap_or_default();
        let until = source.tokio_instant(at);
        place.set(Some(tokio::time::sleep_until(until)));
        Self::Tokio(place, source.clone())
    }

    /// Cancels it.
    #[inline(never)] // So that dropping a future without a timer is a test and no more.
    fn release(self) {
        match self {
            Self::Tokio(mut place, _) => {
                place.set(None);
                let _ = UNUSED.try_with(|unused| {
                    let mut unused = unused.borrow_mut();
                    if unused.len() < MOST_UNUSED {
                        unused.push(place);
                    }
                });
            }
            Self::Queued(place, _) => drop(place),
            Self::Manual(clock, key) => clock.forget(key),
        }
    }
}

impl Sleep {
    const fn new(at: Instant, timer: Timer) -> Self {
        Self {
            at,
            timer: Some(timer),
        }
    }

    pub(super) fn tokio(at: Instant, source: &Source) -> Self {
        Self::new(at, Timer::tokio(at, source))
    }

    pub(super) fn manual(at: Instant, clock: &Arc<Manual>) -> Self {
        Self::new(at, Timer::Manual(Arc::clone(clock), None))
    }

    pub(super) fn queued(at: Instant, source: &Source, queue: &'static Queue) -> Self {
        Self::new(at, Timer::Queued(queue.place(), source.clone()))
    }

    /// The point in time it waits for.
    pub fn deadline(&self) -> Instant {
        self.at
    }

    /// Moves it to another point in time.
    pub fn reset(mut self: Pin<&mut Self>, at: Instant) {
        self.at = at;
        match &mut self.timer {
            Some(Timer::Tokio(place, source)) => {
                if let Some(timer) = place.as_mut().as_pin_mut() {
                    timer.reset(source.tokio_instant(at));
                }
            }
            Some(Timer::Queued(place, _)) => place.leave(),
            Some(Timer::Manual(clock, key)) => clock.forget(key.take()),
            None => {}
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { at, timer } = &mut *self;
        if let Some(Timer::Queued(place, source)) = timer {
            match place.poll(*at, cx) {
                Queued::Fired => return Poll::Ready(()),
                Queued::Waits => return Poll::Pending,
                // Nobody would fire it.
                Queued::Abandoned => *timer = Some(Timer::tokio(*at, source)),
            }
        }
        match timer {
            Some(Timer::Tokio(place, _)) => match place.as_mut().as_pin_mut() {
                Some(timer) => timer.poll(cx),
                None => unreachable!("it is there until it is released"),
            },
            Some(Timer::Manual(clock, key)) => clock.poll(*at, key, cx),
            Some(Timer::Queued(..)) | None => unreachable!("dealt with above"),
        }
    }
}

impl Drop for Sleep {
    #[inline]
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.release();
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("at", &self.at).finish()
    }
}
