//! One check under way, which may fail, panic or hang.

use std::{
    error::Error,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tower_mesh_core::{BoxError, BoxFuture, Clock, Instant, Sleep};

use crate::text::bounded;

/// What a check is about has said of itself that it is unwell: as an error of a check it counts at once, however many
/// failures would be needed otherwise.
#[derive(Clone, Debug)]
pub struct Unhealthy(Arc<str>);

impl Unhealthy {
    /// With what it said; cut to 256 bytes.
    pub fn new(why: &str) -> Self {
        Self(bounded(why))
    }
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Unhealthy {}

/// Why a check has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) why: Arc<str>,
    /// It was said by what was checked.
    pub(crate) definite: bool,
}

impl Failure {
    fn new(why: &str) -> Self {
        Self {
            why: bounded(why),
            definite: false,
        }
    }

    fn of(error: &BoxError) -> Self {
        Self {
            why: bounded(&error.to_string()),
            definite: error.is::<Unhealthy>(),
        }
    }
}

pub(crate) type Check<T> = BoxFuture<'static, Result<T, BoxError>>;

/// A check that ends when its time is over, and is none the worse for a panic.
pub(crate) struct Probe<T> {
    /// Gone once it has ended.
    check: Option<Check<T>>,
    started: Instant,
    limit: Duration,
    sleep: Sleep,
}

impl<T> Probe<T> {
    /// Begins what `start` makes.
    pub(crate) fn start(start: impl FnOnce() -> Check<T>, clock: &Clock, limit: Duration) -> Self {
        let started = clock.now();
        Self {
            check: catch_unwind(AssertUnwindSafe(start)).ok(),
            started,
            limit,
            sleep: clock.sleep_until(started + limit),
        }
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Failure>> {
        let Some(check) = &mut self.check else {
            return Poll::Ready(Err(Failure::new("the check panicked")));
        };
        // What an error says of itself is its own code, too.
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let answer = check.as_mut().poll(cx);
            answer.map(|answer| answer.map_err(|error| Failure::of(&error)))
        }));
        let answer = match polled {
            Ok(Poll::Ready(answer)) => answer,
            Err(_) => Err(Failure::new("the check panicked")),
            Ok(Poll::Pending) if Pin::new(&mut self.sleep).poll(cx).is_pending() => {
                return Poll::Pending;
            }
            Ok(Poll::Pending) => {
                let limit = self.limit;
                Err(Failure::new(&format!("no answer within {limit:?}")))
            }
        };
        self.end();
        Poll::Ready(answer)
    }

    /// Drops the check, which may panic, too.
    fn end(&mut self) {
        let check = self.check.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(check)));
    }
}

impl<T> Drop for Probe<T> {
    fn drop(&mut self) {
        self.end();
    }
}
