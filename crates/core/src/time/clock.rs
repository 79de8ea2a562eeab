//! The clock: what it reads, and what its timers wait with.

use std::{
    fmt,
    future::Future,
    pin::pin,
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_util::future::{Either, select};

use super::{
    Instant, Sleep,
    manual::{Manual, ManualClock},
    queue::{Queue, TimerDriver},
};

/// What a mesh takes time from: `now` and the timers come from the same source, so a timer that has fired and a
/// reading of the clock never contradict each other.
///
/// The default is tokio's clock, which tests can pause.
///
/// # Clone
///
/// A clone is the same clock, and writes to nothing that is shared.
#[derive(Clone)]
pub struct Clock {
    source: Source,
    queue: Option<&'static Queue>,
}

/// Where a clock reads the time: all of it that an attempt needs, and a copy costs next to nothing.
#[derive(Clone)]
pub(crate) struct Source {
    /// What tells this source from others; clones share it.
    identity: usize,
    /// If it is moved by hand.
    manual: Option<Arc<Manual>>,
}

/// Identities that are no address.
const TOKIO: usize = 2;
const SYSTEM: usize = 3;

/// Every clock begins here, and not at zero: tokio's paused clock may stand before its origin, and "this long ago" has
/// to be a point in time, too.
pub(super) const ORIGIN: Instant = Instant::from_nanos(1 << 60);

impl Clock {
    /// Tokio's clock and timers, paused by `tokio::time::pause`.
    ///
    /// # Panics
    ///
    /// Its timers panic outside a tokio runtime; reading the time does not.
    pub fn tokio() -> Self {
        tokio_origin();
        Self::of(Source::new(TOKIO))
    }

    /// The processor's counter of time, and timers which all calls share and the driver fires: both cost a call less than
    /// those of the operating system and of tokio.
    ///
    /// Run the driver as long as there are calls. Before it is first polled, and once it has been dropped, timers are
    /// tokio's. Timers fire as precisely as tokio's, a millisecond or so late; later if so many wait that looking
    /// through them would take more than a twentieth of a processor, or if the runtime that polls the driver is held up.
    ///
    /// It does not see `tokio::time::pause`. On machines without a counter that can be relied upon it reads the
    /// operating system's clock. The first use in a process measures how fast the counter runs, which takes up to 200 ms
    /// of processor time.
    ///
    /// # Panics
    ///
    /// Timers panic outside a tokio runtime while no driver runs; reading the time does not.
    pub fn system() -> (Self, TimerDriver) {
        System::get();
        let source = Source::new(SYSTEM);
        let driver = TimerDriver::new(source.clone());
        let queue = Some(driver.queue());
        (Self { source, queue }, driver)
    }

    /// The clock for who runs on this runtime: [`system`](Self::system), unless tokio's stands still because a test has
    /// paused it; then [`tokio`](Self::tokio), which needs no driver.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn for_runtime() -> (Self, Option<TimerDriver>) {
        let (system, driver) = Self::system();
        let tokio = Self::tokio();
        let (began, before) = (system.now(), tokio.now());
        // A clock that runs moves on by more than its own grain.
        while system.now().since(began) < Duration::from_micros(2) {
            std::hint::spin_loop();
        }
        if tokio.now() == before {
            (tokio, None)
        } else {
            (system, Some(driver))
        }
    }

    /// A clock that stands still until its handle moves it: for simulation, and for tests without a runtime.
    pub fn manual() -> (Self, ManualClock) {
        let shared = Arc::new(Manual::new());
        let source = Source {
            identity: Arc::as_ptr(&shared) as usize,
            manual: Some(Arc::clone(&shared)),
        };
        (Self::of(source), ManualClock::new(shared))
    }

    const fn of(source: Source) -> Self {
        Self {
            source,
            queue: None,
        }
    }

    /// Reads the time from the source. On the path of a call use [`frame::now`](crate::frame::now), which reads once.
    #[inline]
    pub fn now(&self) -> Instant {
        self.source.now()
    }

    /// A future that completes at `at`; it is registered when it is first polled.
    ///
    /// # Cancel safety
    ///
    /// Dropping it cancels the timer.
    pub fn sleep_until(&self, at: Instant) -> Sleep {
        match (&self.source.manual, &self.queue) {
            (Some(clock), _) => Sleep::manual(at, clock),
            (_, Some(queue)) => Sleep::queued(at, &self.source, queue),
            (_, None) => Sleep::tokio(at, &self.source),
        }
    }

    /// A future that completes `after` from now.
    pub fn sleep(&self, after: Duration) -> Sleep {
        self.sleep_until(self.now() + after)
    }

    /// What `future` comes to if it does before `end`; then it, too, is dropped. For what is no call: there the outermost
    /// layer has the one timer.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `future` and cancels the timer.
    pub async fn before<T>(&self, end: Instant, future: impl Future<Output = T>) -> Option<T> {
        match select(pin!(future), self.sleep_until(end)).await {
            Either::Left((out, _)) => Some(out),
            Either::Right(_) => None,
        }
    }

    /// What `future` comes to if it takes no longer than `limit` from its first poll; as [`before`](Self::before).
    pub async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        self.before(self.now() + limit, future).await
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }
}

impl Source {
    const fn new(identity: usize) -> Self {
        Self {
            identity,
            manual: None,
        }
    }

    #[inline]
    pub(crate) fn now(&self) -> Instant {
        if self.identity == SYSTEM {
            System::get().now()
        } else {
            self.now_elsewhere()
        }
    }

    #[inline(never)] // What the system's clock costs is not to be spoilt by the registers of the others.
    fn now_elsewhere(&self) -> Instant {
        match &self.manual {
            Some(manual) => manual.read(),
            None => tokio_now(),
        }
    }

    #[inline]
    pub(crate) fn identity(&self) -> usize {
        self.identity
    }

    /// When it is `at` here by tokio's clock, which the caller's timer then waits for.
    pub(super) fn tokio_instant(&self, at: Instant) -> tokio::time::Instant {
        // Tokio panics on instants that overflow; thirty years is its own idea of "far".
        const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
        let far = |time: Duration| time.min(FAR);
        match self.identity {
            TOKIO if at >= ORIGIN => tokio_origin() + far(at.since(ORIGIN)),
            TOKIO => {
                let origin = tokio_origin();
                origin.checked_sub(ORIGIN.since(at)).unwrap_or(origin)
            }
            // The two clocks drift apart, so it counts how long it is from now.
            #[allow(clippy::disallowed_methods)]
            _ => tokio::time::Instant::now() + far(at.since(self.now())),
        }
    }
}

/// The processor's counter of time, and how to make nanoseconds of it.
struct System {
    counter: quanta::Clock,
    origin: u64,
    /// Nanoseconds in a tick, in 2^-32.
    per_tick: u64,
}

impl System {
    #[inline]
    fn get() -> &'static Self {
        static SYSTEM: LazyLock<System> = LazyLock::new(|| {
            let counter = quanta::Clock::new();
            System {
                origin: counter.raw(),
                per_tick: counter.delta_as_nanos(0, 1 << 32),
                counter,
            }
        });
        &SYSTEM
    }

    /// Scaled here, by a shift that is known: quanta's own has to look it up.
    #[inline]
    fn now(&self) -> Instant {
        // The counters of two processors may differ by a few ticks.
        let ticks = self.counter.raw().saturating_sub(self.origin);
        let nanos = (u128::from(ticks) * u128::from(self.per_tick)) >> 32;
        Instant::from_nanos(ORIGIN.as_nanos() + nanos as u64)
    }
}

#[allow(clippy::disallowed_methods)] // The one place that reads it.
fn tokio_origin() -> tokio::time::Instant {
    static TOKIO: std::sync::OnceLock<tokio::time::Instant> = std::sync::OnceLock::new();
    *TOKIO.get_or_init(tokio::time::Instant::now)
}

#[allow(clippy::disallowed_methods)] // The one place that reads it.
fn tokio_now() -> Instant {
    let origin = tokio_origin();
    let now = tokio::time::Instant::now();
    match now.checked_duration_since(origin) {
        Some(ahead) => ORIGIN + ahead,
        None => ORIGIN - origin.duration_since(now),
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::tokio()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source.identity {
            TOKIO => "Clock::tokio",
            SYSTEM => "Clock::system",
            _ => "Clock::manual",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_tokio_clock_and_its_timers_agree_when_paused() {
        let clock = Clock::tokio();
        let start = clock.now();
        clock.sleep_until(start + Duration::from_secs(3)).await;
        assert_eq!(clock.now().since(start), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_has_its_time_and_no_more_and_is_asked_first() {
        let clock = Clock::tokio();
        let limit = Duration::from_secs(3);
        let takes = |time| {
            let clock = clock.clone();
            async move { clock.sleep(time).await }
        };
        assert_eq!(clock.within(limit, takes(limit / 2)).await, Some(()));
        let start = clock.now();
        assert_eq!(clock.within(limit, takes(2 * limit)).await, None);
        assert_eq!(clock.now().since(start), limit);
        assert_eq!(clock.before(start, async { 7 }).await, Some(7));
        assert_eq!(clock.before(Instant::NEVER, takes(limit)).await, Some(()));
    }

    #[test]
    fn a_paused_runtime_is_noticed() {
        let on = |paused| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_time().start_paused(paused).build().unwrap();
            let (clock, driver) = runtime.block_on(async { Clock::for_runtime() });
            (format!("{clock:?}"), driver.is_some())
        };
        assert_eq!(on(true), ("Clock::tokio".to_owned(), false));
        assert_eq!(on(false), ("Clock::system".to_owned(), true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_for_never_can_be_made_and_dropped() {
        for clock in [Clock::tokio(), Clock::system().0] {
            let sleep = clock.sleep_until(Instant::NEVER);
            assert_eq!(sleep.deadline(), Instant::NEVER);
            assert!(tokio_test::task::spawn(sleep).poll().is_pending());
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // What it is held against.
    fn the_system_clock_goes_on_at_the_speed_of_the_operating_systems() {
        let (clock, _) = Clock::system();
        // One within the other, so that being interrupted between two readings says nothing.
        let around = std::time::Instant::now();
        let start = clock.now();
        let within = std::time::Instant::now();
        while within.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let within = within.elapsed();
        let took = clock.now().since(start);
        let around = around.elapsed();
        assert!(took >= within.mul_f64(0.99), "{took:?} of {within:?}");
        assert!(took <= around.mul_f64(1.01), "{took:?} of {around:?}");
    }
}
