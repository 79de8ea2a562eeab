//! The bulkhead, its adaptive limit, the deadline and the throttle as their users see them.

mod adaptive;
mod bulkhead;
mod cost;
mod deadline;
mod endings;
mod flaws;
mod priorities;
mod queue;
#[cfg(feature = "rate")]
mod rate;
mod storm;
mod throttle;

use std::{
    error::Error,
    fmt,
    future::Future,
    num::NonZeroUsize,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio_test::task::{Spawn, spawn};
use tower_mesh_core::{BoxError, Clock, Kind, ManualClock, Refusal, Sent, frame};
use tower_mesh_limit::{BulkheadLayer, DeadlineLayer};
use tower_service::Service;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// What the inner service is asked to do.
#[derive(Clone, Debug)]
enum Ask {
    Answer,
    /// Answer after this many polls.
    Later(usize),
    /// Answer once the switch is on.
    When(Switch),
    Never,
    Fail,
    FailLater(usize),
    PanicInCall,
    PanicLater(usize),
}

#[derive(Clone, Debug, Default)]
struct Switch(Arc<AtomicBool>);

impl Switch {
    fn turn_on(&self) {
        self.0.store(true, SeqCst);
    }
}

/// The inner service: does as it is asked, and keeps account.
#[derive(Clone, Debug, Default)]
struct Inner(Arc<Account>);

#[derive(Debug, Default)]
struct Account {
    called: AtomicUsize,
    running: AtomicUsize,
    /// Calls dropped because their time was up.
    timed_out: AtomicUsize,
}

impl Inner {
    fn called(&self) -> usize {
        self.0.called.load(SeqCst)
    }

    fn running(&self) -> usize {
        self.0.running.load(SeqCst)
    }

    fn timed_out(&self) -> usize {
        self.0.timed_out.load(SeqCst)
    }

    /// How many clones there are, futures included.
    fn held(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

impl Service<Ask> for Inner {
    type Response = &'static str;
    type Error = Failed;
    type Future = Work;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, ask: Ask) -> Work {
        self.0.called.fetch_add(1, SeqCst);
        assert!(!matches!(ask, Ask::PanicInCall), "as asked");
        self.0.running.fetch_add(1, SeqCst);
        Work {
            ask,
            polls: 0,
            account: Arc::clone(&self.0),
        }
    }
}

/// A call of [`Inner`].
struct Work {
    ask: Ask,
    polls: usize,
    account: Arc<Account>,
}

impl Future for Work {
    type Output = Result<&'static str, Failed>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.polls += 1;
        let waited = self.polls - 1;
        let (done, result) = match &self.ask {
            Ask::Answer => (true, Ok("answer")),
            Ask::Later(polls) => (waited >= *polls, Ok("answer")),
            Ask::When(switch) => (switch.0.load(SeqCst), Ok("answer")),
            Ask::Never => (false, Ok("answer")),
            Ask::Fail => (true, Err(Failed)),
            Ask::FailLater(polls) => (waited >= *polls, Err(Failed)),
            Ask::PanicLater(polls) => {
                assert!(waited < *polls, "as asked");
                (false, Err(Failed))
            }
            Ask::PanicInCall => unreachable!("it panics in call"),
        };
        if done {
            Poll::Ready(result)
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.account.running.fetch_sub(1, SeqCst);
        if frame::is_timing_out() {
            self.account.timed_out.fetch_add(1, SeqCst);
        }
    }
}

#[derive(Debug, PartialEq)]
struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed as asked")
    }
}

impl Error for Failed {}

fn bulkhead(limit: usize) -> BulkheadLayer {
    BulkheadLayer::new(non_zero(limit))
}

fn non_zero(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("the tests ask for none that is zero")
}

/// A deadline on a clock that stands still.
fn deadline(timeout: Duration) -> (DeadlineLayer, Clock, ManualClock) {
    let (clock, time) = Clock::manual();
    (
        DeadlineLayer::new(timeout).clock(clock.clone()),
        clock,
        time,
    )
}

/// A call, as a task that is polled by hand.
fn call<S: Service<Ask>>(service: &mut S, ask: Ask) -> Spawn<S::Future> {
    spawn(service.call(ask))
}

/// What has become of a call.
#[derive(Debug, PartialEq)]
enum Now {
    Pending,
    Answered,
    Failed,
    Refused(Kind, Sent),
}

const OVERLOADED: Now = Now::Refused(Kind::Overloaded, Sent::Never);

fn poll<F>(task: &mut Spawn<F>) -> Now
where
    F: Future<Output = Result<&'static str, BoxError>>,
{
    match task.poll() {
        Poll::Pending => Now::Pending,
        Poll::Ready(Ok(_)) => Now::Answered,
        Poll::Ready(Err(error)) => match Refusal::of(&*error) {
            Some(refusal) => Now::Refused(refusal.kind(), refusal.sent()),
            None => {
                assert!(error.is::<Failed>(), "{error}");
                Now::Failed
            }
        },
    }
}
