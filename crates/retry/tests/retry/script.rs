//! A service that does what it is told and notes what is done to it.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use tower::{BoxError, Service};
use tower_mesh_core::{
    Clock, Instant, Kind, Outcome, Pushback, Refusal, Sent, Sleep,
    frame::{self, Call},
};

/// What it does with an attempt.
#[derive(Debug)]
pub(crate) enum Step {
    Answer(Result<u16, BoxError>),
    AnswerAfter(Duration, Result<u16, BoxError>),
    Hang,
    Panic,
    /// It fails to become ready.
    Unready(BoxError),
    /// It does not become ready at all.
    NeverReady,
}

pub(crate) fn ok() -> Step {
    Step::Answer(Ok(200))
}

pub(crate) fn status(status: u16) -> Step {
    Step::Answer(Ok(status))
}

pub(crate) fn down() -> Step {
    Step::Answer(Err("down".into()))
}

/// An error of the mesh's own kinds.
pub(crate) fn fails(refusal: Refusal) -> Step {
    Step::Answer(Err(refusal.into()))
}

pub(crate) fn connection_refused() -> Step {
    fails(Refusal::remote(Kind::Connect, Sent::Never))
}

pub(crate) fn busy(retry_after: Duration) -> Step {
    fails(Refusal::remote(Kind::Overloaded, Sent::Maybe).with_retry_after(Some(retry_after)))
}

/// 503 is an overload, 500 a failure, 599 one after which the service wants to be left alone; 100 is open still.
pub(crate) fn judge(
    result: Result<&u16, &(dyn std::error::Error + Send + Sync + 'static)>,
) -> tower_mesh_core::Verdict {
    match result {
        Ok(100) => tower_mesh_core::Verdict::Deferred,
        Ok(500) => Outcome::failure().into(),
        Ok(503) => Outcome::overload().into(),
        Ok(599) => Outcome::failure().with_pushback(Pushback::Stop).into(),
        Ok(_) => Outcome::success().into(),
        Err(error) => tower_mesh_core::ClassifyErrors::error(error).into(),
    }
}

/// # Clone
///
/// A clone follows the same script, and is not ready.
pub(crate) struct Script<Req = &'static str> {
    notes: Arc<Mutex<Notes<Req>>>,
    clock: Clock,
    ready: bool,
}

pub(crate) struct Notes<Req> {
    steps: VecDeque<Step>,
    otherwise: Option<fn() -> Step>,
    start: Instant,
    /// When it was called, and with what.
    pub(crate) calls: Vec<(Duration, Req)>,
    pub(crate) clones: usize,
    pub(crate) in_flight: usize,
    /// Attempts that were dropped because their time was up.
    pub(crate) timed_out: usize,
    /// Attempts that were dropped otherwise before they had answered.
    pub(crate) abandoned: usize,
}

impl<Req> Script<Req> {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::on(Clock::tokio(), steps, None)
    }

    /// Every attempt gets the same.
    pub(crate) fn always(step: fn() -> Step) -> Self {
        Self::on(Clock::tokio(), [], Some(step))
    }

    pub(crate) fn on(
        clock: Clock,
        steps: impl IntoIterator<Item = Step>,
        otherwise: Option<fn() -> Step>,
    ) -> Self {
        let notes = Notes {
            steps: steps.into_iter().collect(),
            otherwise,
            start: clock.now(),
            calls: Vec::new(),
            clones: 0,
            in_flight: 0,
            timed_out: 0,
            abandoned: 0,
        };
        Self {
            notes: Arc::new(Mutex::new(notes)),
            clock,
            ready: false,
        }
    }

    pub(crate) fn notes<T>(&self, read: impl FnOnce(&Notes<Req>) -> T) -> T {
        read(&self.notes.lock().unwrap())
    }

    /// How often it was called.
    pub(crate) fn calls(&self) -> usize {
        self.notes(|notes| notes.calls.len())
    }

    /// When it was called, since the test began.
    pub(crate) fn times(&self) -> Vec<Duration> {
        self.notes(|notes| notes.calls.iter().map(|(at, _)| *at).collect())
    }

    /// How many hold on to its notes, this one included.
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.notes)
    }
}

impl<Req> Notes<Req> {
    fn step(&mut self) -> Step {
        self.steps
            .pop_front()
            .or_else(|| self.otherwise.map(|step| step()))
            .expect("one attempt more than the script has")
    }
}

impl<Req> Clone for Script<Req> {
    fn clone(&self) -> Self {
        self.notes.lock().unwrap().clones += 1;
        Self {
            notes: Arc::clone(&self.notes),
            clock: self.clock.clone(),
            ready: false,
        }
    }
}

impl<Req> fmt::Debug for Script<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

impl<Req> Service<Req> for Script<Req> {
    type Response = u16;
    type Error = BoxError;
    type Future = Answer<Req>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut notes = self.notes.lock().unwrap();
        match notes.steps.pop_front() {
            Some(Step::Unready(error)) => return Poll::Ready(Err(error)),
            Some(Step::NeverReady) => {
                notes.steps.push_front(Step::NeverReady);
                return Poll::Pending;
            }
            Some(step) => notes.steps.push_front(step),
            None => {}
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Answer<Req> {
        assert!(
            std::mem::take(&mut self.ready),
            "called before it was ready"
        );
        let mut notes = self.notes.lock().unwrap();
        let at = self.clock.now().since(notes.start);
        notes.calls.push((at, request));
        notes.in_flight += 1;
        let step = notes.step();
        let sleep = match &step {
            Step::AnswerAfter(after, _) => Some(Box::pin(self.clock.sleep(*after))),
            _ => None,
        };
        Answer {
            notes: Arc::clone(&self.notes),
            step: Some(step),
            sleep,
        }
    }
}

pub(crate) struct Answer<Req> {
    notes: Arc<Mutex<Notes<Req>>>,
    step: Option<Step>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<Req> Future for Answer<Req> {
    type Output = Result<u16, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(sleep) = &mut self.sleep {
            std::task::ready!(sleep.as_mut().poll(cx));
        }
        match self.step.take().expect("polled after it was ready") {
            Step::Answer(result) | Step::AnswerAfter(_, result) => Poll::Ready(result),
            Step::Panic => panic!("as the script says"),
            step => {
                self.step = Some(step);
                Poll::Pending
            }
        }
    }
}

impl<Req> Drop for Answer<Req> {
    fn drop(&mut self) {
        let mut notes = self.notes.lock().unwrap();
        notes.in_flight -= 1;
        if self.step.is_some() {
            if frame::is_timing_out() {
                notes.timed_out += 1;
            } else {
                notes.abandoned += 1;
            }
        }
    }
}

/// Runs `call` as the outermost layer of a mesh would that has set a deadline.
pub(crate) async fn with_deadline<F: Future>(clock: Clock, after: Duration, call: F) -> F::Output {
    let deadline = clock.now() + after;
    let (mut call, mut frame) = (std::pin::pin!(call), std::pin::pin!(Call::new()));
    std::future::poll_fn(move |cx| {
        frame.as_mut().poll(&clock, cx, |cx| {
            frame::shorten_deadline(deadline);
            call.as_mut().poll(cx)
        })
    })
    .await
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
