//! The deadline and the context of the request that is being served, for the calls that are made to serve it.

use std::{
    cell::Cell,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower_mesh_core::{Clock, Instant, frame};

use crate::context;

thread_local! {
    /// Whether `INHERITED` holds any: reading this needs no look at whether the thread is going down.
    static INHERITS: Cell<bool> = const { Cell::new(false) };
    static INHERITED: Cell<Option<Inherited>> = const { Cell::new(None) };
}

/// What the calls made here inherit: deadline and [context](crate::context) of the request which is being served.
///
/// A [`ServerLayer`](super::ServerLayer) sets it while it polls the handler, and a mesh reads it when a call begins: the
/// call's own deadline is then the nearer of the two, and trace and priority go along. It never makes a call longer. It
/// follows the *future* of the handler, whichever thread polls it, but not into a task that the handler spawns;
/// [`carry`](Self::carry) takes it there.
///
/// Work that is to go on when the caller has left is made [`detached`]: it has no deadline, but the same context.
///
/// ```
/// use tower_mesh_http::server::{Inherited, detached};
///
/// # fn send_mail() -> impl std::future::Future<Output = ()> + Send + 'static { async {} }
/// async fn handler() {
///     // In a task, with the same deadline.
///     let report = async { /* calls through the mesh */ };
///     if let Some(inherited) = Inherited::current() {
///         let _report = inherited.carry(report);
///     }
///     // Without one.
///     detached(send_mail()).await;
/// }
/// ```
///
/// # Clone
///
/// A clone is the same deadline.
#[derive(Clone)]
pub struct Inherited {
    /// Never: there is no deadline.
    at: Instant,
    clock: Clock,
    context: context::Context,
}

impl Inherited {
    /// The deadline `at`, in the time of `clock`.
    pub const fn new(at: Instant, clock: Clock) -> Self {
        Self {
            at,
            clock,
            context: context::Context::new(),
        }
    }

    /// The same, with this context.
    #[must_use]
    pub fn with_context(mut self, context: context::Context) -> Self {
        self.context = context;
        self
    }

    /// What holds here, if anything does.
    pub fn current() -> Option<Self> {
        Self::look(Self::clone)
    }

    /// What is left of the deadline that holds here, if there is one.
    ///
    /// In a call of a mesh with the same clock this reads no clock.
    pub fn left_here() -> Option<Duration> {
        Self::look(Self::left).flatten()
    }

    /// The context that holds here; of nothing, if nothing does.
    pub fn context_here() -> context::Context {
        Self::look(|here| here.context.clone()).unwrap_or_default()
    }

    /// What is left of the deadline, if there is one; zero once it has passed.
    pub fn left(&self) -> Option<Duration> {
        (self.at != Instant::NEVER).then(|| self.at.since(frame::now(&self.clock)))
    }

    /// The context.
    pub const fn context(&self) -> &context::Context {
        &self.context
    }

    /// Without a clone.
    pub(crate) fn look_at_context(look: impl FnOnce(&context::Context)) {
        Self::look(|here| look(&here.context));
    }

    /// Lets it hold in `future`, wherever that is polled.
    ///
    /// One that holds there already and is nearer is not looked at: it is replaced.
    pub fn carry<F>(self, future: F) -> Inherits<F> {
        Inherits {
            inherited: Some(self),
            future,
        }
    }

    fn look<T>(look: impl FnOnce(&Self) -> T) -> Option<T> {
        if !INHERITS.get() {
            return None;
        }
        // Put back also if `look` panics.
        let there = Swapped::new(None);
        there.0.as_ref().map(look)
    }
}

impl From<context::Context> for Inherited {
    /// No deadline, and this context: for work that begins here.
    fn from(context: context::Context) -> Self {
        Self::new(Instant::NEVER, Clock::default()).with_context(context)
    }
}

/// Lets no deadline hold in `future`, but the context that holds where it is made: for work that goes on although the
/// request it began with has been answered or given up.
pub fn detached<F>(future: F) -> Inherits<F> {
    let context = Some(Inherited::context_here()).filter(|context| !context.is_empty());
    Inherits {
        inherited: context.map(Inherited::from),
        future,
    }
}

pin_project! {
    /// A future in which something else is inherited, or nothing; see [`Inherited::carry`] and [`detached`].
    ///
    /// # Cancel safety
    ///
    /// As that of the future in it.
    #[must_use = "futures do nothing unless polled"]
    pub struct Inherits<F> {
        inherited: Option<Inherited>,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Inherits<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        within(this.inherited, || this.future.poll(cx))
    }
}

/// Runs `step` with `inherited` in force, which is moved there and back: nothing is counted and nothing cloned.
pub(super) fn within<T>(inherited: &mut Option<Inherited>, step: impl FnOnce() -> T) -> T {
    /// Gives it back, also on panic.
    struct Lent<'a>(&'a mut Option<Inherited>, Option<Inherited>);

    impl Drop for Lent<'_> {
        fn drop(&mut self) {
            *self.0 = swap(self.1.take());
        }
    }

    let priority = inherited.as_ref().and_then(|it| it.context.priority());
    let before = swap(inherited.take());
    let _lent = Lent(inherited, before);
    priority.unwrap_or_default().within(step)
}

/// What was there, until it is dropped.
struct Swapped(Option<Inherited>);

impl Swapped {
    fn new(now: Option<Inherited>) -> Self {
        Self(swap(now))
    }
}

impl Drop for Swapped {
    fn drop(&mut self) {
        swap(self.0.take());
    }
}

fn swap(now: Option<Inherited>) -> Option<Inherited> {
    let inherits = now.is_some();
    if !INHERITS.replace(inherits) && !inherits {
        return None;
    }
    // A thread that goes down polls nothing that could inherit.
    INHERITED.try_with(|cell| cell.replace(now)).ok().flatten()
}

impl fmt::Debug for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inherited")
            .field("at", &self.at)
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for Inherits<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inherits")
            .field("inherited", &self.inherited)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use tokio_test::{assert_pending, assert_ready, task};
    use tower_mesh_core::Priority;

    use super::*;

    fn inherited(millis: u64) -> (Inherited, tower_mesh_core::ManualClock) {
        let (clock, hand) = Clock::manual();
        (
            Inherited::new(clock.now() + Duration::from_millis(millis), clock),
            hand,
        )
    }

    fn left() -> Option<u128> {
        Inherited::left_here().map(|left| left.as_millis())
    }

    #[test]
    fn it_holds_in_the_future_that_carries_it_and_nowhere_else_and_runs_out() {
        let (inherited, hand) = inherited(100);
        let mut polls = 0;
        let mut future = task::spawn(inherited.carry(std::future::poll_fn(move |_| {
            polls += 1;
            match polls {
                1 => {
                    assert_eq!(left(), Some(100));
                    Poll::Pending
                }
                2 => {
                    assert_eq!(left(), Some(40), "of the same deadline");
                    Poll::Pending
                }
                _ => Poll::Ready(left()),
            }
        })));
        assert_eq!(left(), None);
        assert_pending!(future.poll());
        assert_eq!(left(), None, "between two polls");
        hand.advance(Duration::from_millis(60));
        assert_pending!(future.poll());
        hand.advance(Duration::from_millis(60));
        assert_eq!(
            assert_ready!(future.poll()),
            Some(0),
            "never less than nothing"
        );
    }

    #[test]
    fn detached_work_has_none_and_what_is_around_it_keeps_its_own() {
        let (outer, _hand) = inherited(100);
        let (inner, _hand) = inherited(30);
        let future = outer.carry(async {
            assert_eq!(detached(async { left() }).await, None);
            assert_eq!(inner.carry(async { left() }).await, Some(30));
            let again = detached(async { Inherited::current().is_none() && left().is_none() });
            assert!(again.await);
            left()
        });
        assert_eq!(tokio_test::block_on(future), Some(100));
    }

    #[test]
    fn the_context_holds_with_the_deadline_and_in_detached_work_without_it() {
        let context = || Inherited::context_here().priority();
        let (outer, _hand) = inherited(100);
        let critical = context::Context::new().with_priority(Priority::Critical);
        let future = outer.with_context(critical.clone()).carry(async move {
            assert_eq!((context(), left()), (Some(Priority::Critical), Some(100)));
            assert_eq!(Priority::here(), Priority::Critical);
            let within = async { (context(), left(), Inherited::current().is_some()) };
            detached(within).await
        });
        let detached = tokio_test::block_on(future);
        assert_eq!(detached, (Some(Priority::Critical), None, true));
        assert_eq!(context(), None);
        let begun = Inherited::from(critical).carry(async move { context() });
        assert_eq!(tokio_test::block_on(begun), Some(Priority::Critical));
    }

    #[test]
    fn it_can_be_taken_along_into_a_task() {
        let (outer, _hand) = inherited(100);
        let future =
            outer.carry(async { Inherited::current().map(|it| it.carry(async { left() })) });
        let task = tokio_test::block_on(future).unwrap();
        assert_eq!(left(), None);
        assert_eq!(
            std::thread::spawn(|| tokio_test::block_on(task))
                .join()
                .unwrap(),
            Some(100)
        );
    }

    #[test]
    fn a_panic_leaves_none_behind_and_the_future_keeps_its_own() {
        let (inherited, _hand) = inherited(100);
        let mut first = true;
        let mut future = task::spawn(inherited.carry(std::future::poll_fn(|_| {
            assert!(!std::mem::take(&mut first), "boom");
            Poll::Ready(left())
        })));
        assert!(catch_unwind(AssertUnwindSafe(|| future.poll())).is_err());
        assert_eq!(left(), None);
        assert_eq!(assert_ready!(future.poll()), Some(100));
    }
}
