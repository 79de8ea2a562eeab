//! One source of time for a whole mesh: the clock and its timers, injected together.

use std::{
    fmt,
    future::Future,
    ops::{Add, Sub},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use pin_project_lite::pin_project;

/// A point in time of one [`Clock`], in nanoseconds.
///
/// It fits an atomic, and its arithmetic saturates: no input makes it panic or wrap. Instants of different clocks do
/// not compare.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// A point that is never reached.
    pub const NEVER: Self = Self(u64::MAX);

    /// The point `nanos` nanoseconds after the clock's origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time since `earlier`, or zero if that lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(nanos(rhs)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(rhs)))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NEVER => f.write_str("never"),
            Self(nanos) => write!(f, "{:?}", Duration::from_nanos(nanos)),
        }
    }
}

/// A duration in whole nanoseconds; the 584 years that do not fit are cut off.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What a mesh takes time from: `now` and the timers come from the same source, so a timer that has fired and a
/// reading of the clock never contradict each other.
///
/// The default is tokio's clock, which tests can pause.
///
/// # Clone
///
/// A clone is the same clock.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    Tokio { origin: tokio::time::Instant },
    Manual(Arc<Manual>),
}

/// Tokio's paused clocks may start before the process-wide origin was taken; they must not run into zero.
const HEADROOM: u64 = 1 << 60;

impl Clock {
    /// Tokio's clock and timers, paused by `tokio::time::pause`.
    ///
    /// # Panics
    ///
    /// Its timers panic outside a tokio runtime; reading the time does not.
    pub fn tokio() -> Self {
        static ORIGIN: std::sync::OnceLock<tokio::time::Instant> = std::sync::OnceLock::new();
        #[allow(clippy::disallowed_methods)] // The one place that reads it.
        let origin = *ORIGIN.get_or_init(tokio::time::Instant::now);
        Self(Source::Tokio { origin })
    }

    /// A clock that stands still until its handle moves it: for simulation, and for tests without a runtime.
    pub fn manual() -> (Self, ManualClock) {
        let shared = Arc::new(Manual {
            now: AtomicU64::new(HEADROOM),
            reads: AtomicU64::new(0),
            timers: Mutex::default(),
        });
        (
            Self(Source::Manual(Arc::clone(&shared))),
            ManualClock(shared),
        )
    }

    /// Reads the time from the source. On the path of a call use [`frame::now`](crate::frame::now), which reads once.
    pub fn now(&self) -> Instant {
        match &self.0 {
            #[allow(clippy::disallowed_methods)] // The one place that reads it.
            Source::Tokio { origin } => {
                let now = tokio::time::Instant::now();
                match now.checked_duration_since(*origin) {
                    Some(ahead) => Instant(HEADROOM) + ahead,
                    None => Instant(HEADROOM) - origin.duration_since(now),
                }
            }
            Source::Manual(manual) => {
                manual.reads.fetch_add(1, Ordering::Relaxed);
                Instant(manual.now.load(Ordering::Acquire))
            }
        }
    }

    /// A future that completes at `at`; it is registered when it is first polled.
    ///
    /// # Cancel safety
    ///
    /// Dropping it cancels the timer.
    pub fn sleep_until(&self, at: Instant) -> Sleep {
        Sleep {
            at,
            timer: match &self.0 {
                Source::Tokio { origin } => {
                    let timer = tokio::time::sleep_until(tokio_instant(*origin, at));
                    Timer::Tokio {
                        timer,
                        origin: *origin,
                    }
                }
                Source::Manual(manual) => Timer::Manual {
                    clock: Arc::clone(manual),
                    key: None,
                },
            },
        }
    }

    /// A future that completes `after` from now.
    pub fn sleep(&self, after: Duration) -> Sleep {
        self.sleep_until(self.now() + after)
    }

    /// What tells this clock from others; clones share it.
    pub(crate) fn identity(&self) -> usize {
        match &self.0 {
            Source::Tokio { .. } => 1,
            Source::Manual(manual) => Arc::as_ptr(manual) as usize,
        }
    }
}

/// Tokio panics on instants that overflow; thirty years is its own idea of "far".
fn tokio_instant(origin: tokio::time::Instant, at: Instant) -> tokio::time::Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    if at.0 >= HEADROOM {
        origin + at.since(Instant(HEADROOM)).min(FAR)
    } else {
        let behind = Instant(HEADROOM).since(at);
        origin.checked_sub(behind).unwrap_or(origin)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::tokio()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::Tokio { .. } => "Clock::tokio",
            Source::Manual(_) => "Clock::manual",
        })
    }
}

pin_project! {
    /// Waits for a point in time; made by [`Clock::sleep_until`].
    pub struct Sleep {
        at: Instant,
        #[pin]
        timer: Timer,
    }
}

pin_project! {
    #[project = TimerProj]
    enum Timer {
        Tokio { #[pin] timer: tokio::time::Sleep, origin: tokio::time::Instant },
        Manual { clock: Arc<Manual>, key: Option<Key> },
    }

    impl PinnedDrop for Timer {
        fn drop(this: Pin<&mut Self>) {
            if let TimerProj::Manual { clock, key } = this.project() {
                clock.forget(key.take());
            }
        }
    }
}

impl Sleep {
    /// The point in time it waits for.
    pub fn deadline(&self) -> Instant {
        self.at
    }

    /// Moves it to another point in time.
    pub fn reset(self: Pin<&mut Self>, at: Instant) {
        let this = self.project();
        *this.at = at;
        match this.timer.project() {
            TimerProj::Tokio { timer, origin } => timer.reset(tokio_instant(*origin, at)),
            TimerProj::Manual { clock, key } => clock.forget(key.take()),
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        match this.timer.project() {
            TimerProj::Tokio { timer, .. } => timer.poll(cx),
            TimerProj::Manual { clock, key } => clock.poll(*this.at, key, cx),
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("at", &self.at).finish()
    }
}

/// Moves a [`Clock::manual`] and fires its timers.
#[derive(Clone)]
pub struct ManualClock(Arc<Manual>);

type Key = (Instant, u64);

struct Manual {
    now: AtomicU64,
    reads: AtomicU64,
    timers: Mutex<Timers>,
}

#[derive(Default)]
struct Timers {
    next: u64,
    waiting: std::collections::BTreeMap<Key, Waker>,
}

impl ManualClock {
    /// Moves the clock on by `by` and wakes what has become due, the earliest first.
    pub fn advance(&self, by: Duration) {
        self.advance_to(Instant(self.0.now.load(Ordering::Acquire)) + by);
    }

    /// Moves the clock on to `at` (never back) and wakes what has become due, the earliest first.
    pub fn advance_to(&self, at: Instant) {
        self.0.now.fetch_max(at.0, Ordering::AcqRel);
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
            .field("now", &Instant(self.0.now.load(Ordering::Relaxed)))
            .finish_non_exhaustive()
    }
}

impl Manual {
    fn timers(&self) -> std::sync::MutexGuard<'_, Timers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, at: Instant, key: &mut Option<Key>, cx: &mut Context<'_>) -> Poll<()> {
        // The lock is taken before the time is read, so that `advance_to` either sees this timer or is seen by it.
        let mut timers = self.timers();
        let old = key.take();
        let replaced = old.and_then(|key| timers.waiting.remove(&key));
        if self.now.load(Ordering::Acquire) >= at.0 {
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

    fn forget(&self, key: Option<Key>) {
        let waker = key.and_then(|key| self.timers().waiting.remove(&key));
        drop(waker); // Outside the lock: dropping a waker may run user code.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        let now = Instant::from_nanos(5);
        assert_eq!(now + Duration::MAX, Instant::NEVER);
        assert_eq!(now - Duration::MAX, Instant::from_nanos(0));
        assert_eq!(now.since(Instant::NEVER), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_tokio_clock_and_its_timers_agree_when_paused() {
        let clock = Clock::tokio();
        let start = clock.now();
        clock.sleep_until(start + Duration::from_secs(3)).await;
        assert_eq!(clock.now().since(start), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_for_never_can_be_made_and_dropped() {
        let clock = Clock::tokio();
        let sleep = clock.sleep_until(Instant::NEVER);
        assert_eq!(sleep.deadline(), Instant::NEVER);
        assert!(tokio_test::task::spawn(sleep).poll().is_pending());
    }

    #[test]
    fn a_manual_clock_fires_in_order_and_forgets_dropped_timers() {
        let (clock, handle) = Clock::manual();
        let start = clock.now();
        let mut near = Box::pin(clock.sleep_until(start + Duration::from_secs(1)));
        let mut far = Box::pin(clock.sleep_until(start + Duration::from_secs(2)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(far.as_mut().poll(&mut cx).is_pending());
        assert!(near.as_mut().poll(&mut cx).is_pending());
        assert_eq!(handle.next_timer(), Some(start + Duration::from_secs(1)));
        handle.advance(Duration::from_secs(1));
        assert!(near.as_mut().poll(&mut cx).is_ready());
        assert!(far.as_mut().poll(&mut cx).is_pending());
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
