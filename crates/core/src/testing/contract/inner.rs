//! The service beneath the one that is examined: it does what it is told, and notes what is done to it.

use std::{
    fmt,
    future::Future,
    panic::resume_unwind,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tower_service::Service;

use super::{Rule, Tally};
use crate::outcome::BoxError;

/// The service beneath the one that is examined.
///
/// It takes any request. It answers, fails or panics as the examination wants, and notes whether it is used as tower
/// asks for.
///
/// # Clone
///
/// A clone has to be polled ready itself before it is called.
pub struct Inner<Res> {
    stage: Arc<Stage<Res>>,
    readiness: Readiness,
}

enum Readiness {
    /// Not asked yet.
    Unasked,
    Waiting(Wait),
    Ready(Option<Slot>),
}

/// How the inner service behaves from now on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// For how many ticks an instance is not ready.
    pub(super) unready: u32,
    /// For how many ticks a call is pending.
    pub(super) pending: u32,
    pub(super) end: End,
    /// Whether being ready takes the only slot, until the call has ended or the instance is dropped.
    pub(super) exclusive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Ok,
    Err,
    PanicWhenReady,
    PanicInCall,
    PanicWhenPolled,
}

/// For ever, in ticks.
pub(super) const NEVER: u32 = u32::MAX;

impl Plan {
    pub(super) const OK: Self = Self {
        unready: 0,
        pending: 0,
        end: End::Ok,
        exclusive: false,
    };

    pub(super) const EXCLUSIVE: Self = Self {
        exclusive: true,
        ..Self::OK
    };

    pub(super) fn pending(self, pending: u32) -> Self {
        Self { pending, ..self }
    }

    pub(super) fn unready(self, unready: u32) -> Self {
        Self { unready, ..self }
    }

    pub(super) fn end(self, end: End) -> Self {
        Self { end, ..self }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            unready,
            pending,
            end,
            exclusive,
        } = self;
        let only = if *exclusive { " one at a time" } else { "" };
        write!(
            f,
            "an inner service{only} that waits {unready} times to be ready, {pending} times in a call, then {end:?}"
        )
    }
}

/// What all instances share with the examination.
pub(super) struct Stage<Res> {
    state: Mutex<State>,
    slots: Arc<Slots>,
    response: Arc<dyn Fn() -> Res + Send + Sync>,
}

struct State {
    plan: Plan,
    tick: u64,
    waiting: Vec<Waker>,
    seen: Seen,
    fault: Option<(Rule, &'static str)>,
}

/// What has been done to the inner service.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) calls: u32,
    /// Calls that have neither ended nor been dropped.
    pub(super) running: u32,
    pub(super) instances: u32,
    pub(super) tally: Tally,
    /// Panics while it was made ready: an attempt that failed, or none, as one sees it.
    pub(super) panics_when_ready: u64,
}

impl<Res> Stage<Res> {
    pub(super) fn new(plan: Plan, response: Arc<dyn Fn() -> Res + Send + Sync>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                plan,
                tick: 0,
                waiting: Vec::new(),
                seen: Seen::default(),
                fault: None,
            }),
            slots: Arc::default(),
            response,
        })
    }

    pub(super) fn inner(self: &Arc<Self>) -> Inner<Res> {
        self.lock().seen.instances += 1;
        Inner {
            stage: Arc::clone(self),
            readiness: Readiness::Unasked,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, plan: Plan) {
        self.lock().plan = plan;
    }

    pub(super) fn plan(&self) -> Plan {
        self.lock().plan
    }

    pub(super) fn seen(&self) -> Seen {
        self.lock().seen
    }

    /// The first thing that was done to it and must not be.
    pub(super) fn fault(&self) -> Option<(Rule, &'static str)> {
        self.lock().fault
    }

    /// Brings everything that waits one step further.
    pub(super) fn tick(&self) {
        let waiting = {
            let mut state = self.lock();
            state.tick += 1;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl State {
    fn accuse(&mut self, rule: Rule, of: &'static str) {
        self.fault.get_or_insert((rule, of));
    }
}

/// Waits for ticks; polls without one bring it no further.
struct Wait {
    left: u32,
    tick: u64,
}

impl Wait {
    fn new(ticks: u32, state: &State) -> Self {
        Self {
            left: ticks,
            tick: state.tick,
        }
    }

    fn poll(&mut self, state: &mut State, cx: &mut Context<'_>) -> Poll<()> {
        if self.left != NEVER && state.tick > self.tick {
            self.left = self.left.saturating_sub(1);
            self.tick = state.tick;
        }
        if self.left == 0 {
            return Poll::Ready(());
        }
        state.waiting.push(cx.waker().clone());
        Poll::Pending
    }
}

/// The only slot of an exclusive inner service.
#[derive(Default)]
struct Slots(Mutex<SlotState>);

#[derive(Default)]
struct SlotState {
    taken: bool,
    waiting: Vec<Waker>,
}

impl Slots {
    fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Slot> {
        let mut state = self.lock();
        if state.taken {
            state.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        state.taken = true;
        Poll::Ready(Slot(Arc::clone(self)))
    }
}

/// Holds the slot.
struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.lock();
            state.taken = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Panics as user code does, but says nothing: the hook of panics is for those that nobody wanted.
fn panic_silently() -> ! {
    resume_unwind(Box::new(
        "the inner service panics, as the examination wants",
    ))
}

impl<Req, Res> Service<Req> for Inner<Res> {
    type Response = Res;
    type Error = BoxError;
    type Future = InnerFuture<Res>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut state = self.stage.lock();
        let plan = state.plan;
        if plan.end == End::PanicWhenReady {
            state.seen.panics_when_ready += 1;
            drop(state);
            panic_silently();
        }
        if let Readiness::Unasked = self.readiness {
            self.readiness = Readiness::Waiting(Wait::new(plan.unready, &state));
        }
        if let Readiness::Waiting(wait) = &mut self.readiness {
            std::task::ready!(wait.poll(&mut state, cx));
            drop(state);
            let slot = match plan.exclusive {
                true => Some(std::task::ready!(self.stage.slots.take(cx))),
                false => None,
            };
            self.readiness = Readiness::Ready(slot);
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> InnerFuture<Res> {
        let mut state = self.stage.lock();
        state.seen.calls += 1;
        let slot = match std::mem::replace(&mut self.readiness, Readiness::Unasked) {
            Readiness::Ready(slot) => slot,
            _ => {
                let of = "it was called without having been polled ready";
                state.accuse(Rule::CallsOnlyTheReady, of);
                None
            }
        };
        let plan = state.plan;
        if plan.end == End::PanicInCall {
            state.seen.tally.failures += 1;
            drop(state);
            panic_silently();
        }
        state.seen.running += 1;
        let wait = Wait::new(plan.pending, &state);
        drop(state);
        InnerFuture {
            stage: Arc::clone(&self.stage),
            wait,
            end: plan.end,
            slot,
            ended: false,
        }
    }
}

impl<Res> Clone for Inner<Res> {
    fn clone(&self) -> Self {
        self.stage.inner()
    }
}

impl<Res> Drop for Inner<Res> {
    fn drop(&mut self) {
        self.stage.lock().seen.instances -= 1;
    }
}

impl<Res> fmt::Debug for Inner<Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

/// A call of [`Inner`].
pub struct InnerFuture<Res> {
    stage: Arc<Stage<Res>>,
    wait: Wait,
    end: End,
    slot: Option<Slot>,
    ended: bool,
}

impl<Res> InnerFuture<Res> {
    /// Ends the call: what it held is given back before anybody sees the end.
    fn end(&mut self, state: &mut State) {
        self.ended = true;
        state.seen.running -= 1;
    }
}

impl<Res> Future for InnerFuture<Res> {
    type Output = Result<Res, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let stage = Arc::clone(&this.stage);
        let mut state = stage.lock();
        if this.ended {
            state.accuse(Rule::LeavesTheFinished, "a call was polled after its end");
            return Poll::Pending;
        }
        std::task::ready!(this.wait.poll(&mut state, cx));
        this.end(&mut state);
        let ok = this.end == End::Ok;
        match ok {
            true => state.seen.tally.successes += 1,
            false => state.seen.tally.failures += 1,
        }
        drop(state);
        drop(this.slot.take());
        match this.end {
            End::Ok => Poll::Ready(Ok((stage.response)())),
            End::Err => Poll::Ready(Err("the inner service fails".into())),
            _ => panic_silently(),
        }
    }
}

impl<Res> Drop for InnerFuture<Res> {
    fn drop(&mut self) {
        if !self.ended {
            let stage = Arc::clone(&self.stage);
            self.end(&mut stage.lock());
        }
    }
}

impl<Res> fmt::Debug for InnerFuture<Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InnerFuture").finish_non_exhaustive()
    }
}
