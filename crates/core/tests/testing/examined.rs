//! A service that admits one call at a time, counts outcomes, and has one fault of choice.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::future::{Either, select};
use tokio::sync::{Semaphore, SemaphorePermit};
use tower_mesh_core::{
    BoxError, Clock,
    testing::contract::{Inner, Subject, Tally},
};
use tower_service::Service;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    CallsTheUnready,
    PollsTheFinished,
    ReservesInReady,
    ForgetsToBeWoken,
    IsNotReadyAsAClone,
    KeepsReadinessWhenDropped,
    KeepsPermitsWhenDropped,
    KeepsPermitsInPanics,
    Poisons,
    Spins,
    CallsOnWithoutCaller,
    HoldsItself,
    WakesOneForAll,
    HandsToTheDropped,
    TriesThrice,
    CountsNoPanics,
    CountsTwice,
    CountsTheDropped,
    EndsWithTheInner,
    EndsInTime,
}

type Response = Result<&'static str, BoxError>;

pub(crate) struct Examined {
    inner: Inner<&'static str>,
    shared: Arc<Shared>,
    fault: Fault,
    ready: bool,
    dead: bool,
}

struct Shared {
    clock: Clock,
    permits: Semaphore,
    /// What the faults use in place of the semaphore: whether it is taken, and who waits.
    taken: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
    lock: Mutex<()>,
    itself: Mutex<Option<Inner<&'static str>>>,
    running: AtomicI64,
    successes: AtomicU64,
    failures: AtomicU64,
}

pub(crate) fn examined(
    inner: Inner<&'static str>,
    clock: &Clock,
    fault: Fault,
) -> Subject<Examined> {
    let service = bare(inner, clock, fault);
    let (at_rest, tally) = (Arc::clone(&service.shared), Arc::clone(&service.shared));
    Subject::new(service)
        .at_rest(move || match at_rest.running.load(Ordering::Relaxed) {
            0 => Ok(()),
            running => Err(format!("{running} permits are out")),
        })
        .tally(move || Tally {
            successes: tally.successes.load(Ordering::Relaxed),
            failures: tally.failures.load(Ordering::Relaxed),
        })
}

pub(crate) fn bare(inner: Inner<&'static str>, clock: &Clock, fault: Fault) -> Examined {
    let shared = Arc::new(Shared {
        clock: clock.clone(),
        permits: Semaphore::new(1),
        taken: AtomicBool::new(false),
        waiting: Mutex::default(),
        lock: Mutex::default(),
        itself: Mutex::default(),
        running: AtomicI64::new(0),
        successes: AtomicU64::new(0),
        failures: AtomicU64::new(0),
    });
    if fault == Fault::HoldsItself {
        *shared.itself.lock().unwrap() = Some(inner.clone());
        mem::forget(Arc::clone(&shared));
    }
    Examined {
        inner,
        shared,
        fault,
        ready: false,
        dead: false,
    }
}

impl Clone for Examined {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: Arc::clone(&self.shared),
            fault: self.fault,
            ready: false,
            dead: self.ready && self.fault == Fault::IsNotReadyAsAClone,
        }
    }
}

fn ready(inner: &mut Inner<&'static str>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
    Service::<&str>::poll_ready(inner, cx)
}

impl Service<&'static str> for Examined {
    type Response = &'static str;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Response>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.dead {
            return Poll::Pending;
        }
        match self.fault {
            Fault::ReservesInReady => return ready(&mut self.inner, cx),
            Fault::ForgetsToBeWoken => {
                return ready(&mut self.inner, &mut Context::from_waker(Waker::noop()));
            }
            Fault::KeepsReadinessWhenDropped if !self.ready => {
                std::task::ready!(self.shared.poll_take(cx));
            }
            _ => {}
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: &'static str) -> Self::Future {
        self.ready = false;
        let clone = self.inner.clone();
        let inner = match self.fault {
            Fault::ReservesInReady | Fault::ForgetsToBeWoken => {
                mem::replace(&mut self.inner, clone)
            }
            _ => clone,
        };
        Box::pin(attempts(
            inner,
            Arc::clone(&self.shared),
            self.fault,
            request,
        ))
    }
}

async fn attempts(
    mut inner: Inner<&'static str>,
    shared: Arc<Shared>,
    fault: Fault,
    request: &'static str,
) -> Response {
    let permit = match fault {
        Fault::KeepsReadinessWhenDropped => {
            shared.give();
            None
        }
        Fault::WakesOneForAll | Fault::HandsToTheDropped => {
            poll_fn(|cx| shared.poll_take(cx)).await;
            None
        }
        _ => Some(shared.permits.acquire().await?),
    };
    let _own = matches!(fault, Fault::WakesOneForAll | Fault::HandsToTheDropped).then(|| Given {
        shared: &shared,
        fault,
    });
    let running = Running::new(&shared, fault, permit);
    let tries = if fault == Fault::TriesThrice { 3 } else { 1 };
    let mut response = Err("not tried".into());
    for _ in 0..tries {
        let attempt = pin!(attempt(&mut inner, &shared, fault, request));
        response = match fault {
            Fault::EndsInTime => {
                let limit = pin!(shared.clock.sleep(Duration::from_secs(1)));
                match select(attempt, limit).await {
                    Either::Left((response, _)) => response,
                    Either::Right(_) => Err("timed out".into()),
                }
            }
            _ => attempt.await,
        };
        if response.is_ok() {
            break;
        }
    }
    running.end();
    response
}

async fn attempt(
    inner: &mut Inner<&'static str>,
    shared: &Shared,
    fault: Fault,
    request: &'static str,
) -> Response {
    let mut outcome = Outcome {
        shared,
        fault,
        told: false,
    };
    match fault {
        Fault::CallsTheUnready | Fault::ReservesInReady | Fault::ForgetsToBeWoken => {}
        _ => poll_fn(|cx| ready(inner, cx)).await?,
    }
    let response = call(inner, shared, fault, request).await;
    outcome.tell(response.is_ok());
    response
}

async fn call(
    inner: &mut Inner<&'static str>,
    shared: &Shared,
    fault: Fault,
    request: &'static str,
) -> Response {
    let mut call = pin!(OnItsOwn(Some(Box::pin(inner.call(request))), fault));
    match fault {
        Fault::Poisons => {
            poll_fn(|cx| {
                let _locked = shared.lock.lock().unwrap();
                call.as_mut().poll(cx)
            })
            .await
        }
        Fault::Spins => {
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                call.as_mut().poll(cx)
            })
            .await
        }
        Fault::PollsTheFinished => {
            poll_fn(|cx| {
                let end = call.as_mut().poll(cx);
                if end.is_ready() {
                    let _ = call.as_mut().poll(cx);
                }
                end
            })
            .await
        }
        _ => call.await,
    }
}

/// A call that goes on when nobody waits for it, if that is the fault.
struct OnItsOwn<F>(Option<Pin<Box<F>>>, Fault);

impl<F: Future> Future for OnItsOwn<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.0.as_mut().unwrap().as_mut().poll(cx)
    }
}

impl<F> Drop for OnItsOwn<F> {
    fn drop(&mut self) {
        if self.1 == Fault::CallsOnWithoutCaller {
            mem::forget(self.0.take());
        }
    }
}

struct Running<'a> {
    shared: &'a Shared,
    fault: Fault,
    permit: Option<SemaphorePermit<'a>>,
}

impl<'a> Running<'a> {
    fn new(shared: &'a Shared, fault: Fault, permit: Option<SemaphorePermit<'a>>) -> Self {
        shared.running.fetch_add(1, Ordering::Relaxed);
        Self {
            shared,
            fault,
            permit,
        }
    }

    fn end(mut self) {
        self.fault = Fault::None;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let kept = match self.fault {
            Fault::KeepsPermitsWhenDropped => !std::thread::panicking(),
            Fault::KeepsPermitsInPanics => std::thread::panicking(),
            _ => false,
        };
        if !kept {
            self.shared.running.fetch_sub(1, Ordering::Relaxed);
        } else if let Some(permit) = self.permit.take() {
            permit.forget();
        }
    }
}

/// Counts how an attempt has ended, also when it panics; one that is dropped says nothing.
struct Outcome<'a> {
    shared: &'a Shared,
    fault: Fault,
    told: bool,
}

impl Outcome<'_> {
    fn tell(&mut self, ok: bool) {
        self.told = self.fault != Fault::CountsTwice;
        let count = if ok {
            &self.shared.successes
        } else {
            &self.shared.failures
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let counts = match self.fault {
            Fault::CountsNoPanics => false,
            Fault::CountsTheDropped | Fault::CountsTwice => true,
            _ => std::thread::panicking(),
        };
        if counts {
            self.shared.failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A lock made by hand, as it should not be: one place, and wakers that are woken once.
impl Shared {
    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.taken.swap(true, Ordering::Relaxed) {
            return Poll::Ready(());
        }
        self.waiting().push(cx.waker().clone());
        Poll::Pending
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self) {
        self.taken.store(false, Ordering::Relaxed);
        let waiting = mem::take(&mut *self.waiting());
        waiting.into_iter().for_each(Waker::wake);
    }
}

struct Given<'a> {
    shared: &'a Shared,
    fault: Fault,
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        self.shared.taken.store(false, Ordering::Relaxed);
        let mut waiting = self.shared.waiting();
        let next = match self.fault {
            // The others are forgotten.
            Fault::WakesOneForAll => mem::take(&mut *waiting).pop(),
            // The next in line is woken, though it may be gone.
            _ if waiting.is_empty() => None,
            _ => Some(waiting.remove(0)),
        };
        drop(waiting);
        next.into_iter().for_each(Waker::wake);
    }
}
