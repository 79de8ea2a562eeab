//! What became of a call, in one word that every consumer understands.

use std::{error::Error, fmt, mem, time::Duration};

use crate::{
    refusal::{Refusal, Sent},
    report::Report,
};

/// An error of any layer: what tower uses wherever layers of different makers meet.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What became of one attempt: the verdict that breaker, load, budget and retry are fed with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    class: Class,
    sent: Sent,
    /// In nanoseconds, or [`NOTHING`] or [`STOP`]: what holds an outcome is moved with every response.
    pushback: u64,
}

const NOTHING: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;
/// Five centuries.
const LONGEST: u64 = u64::MAX - 2;

/// Whom an attempt speaks for or against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// The endpoint did its work, even if the answer was "no such thing".
    Success,
    /// The endpoint failed.
    Failure,
    /// The endpoint said that it has too much to do. It counts as a failure of the endpoint.
    Overload,
    /// The endpoint did not answer within the time the mesh gave it. It counts as a failure of the endpoint.
    Timeout,
    /// Nothing can be said of the endpoint: the caller went away, or the mesh itself refused.
    Neutral,
}

/// What the endpoint asked for about the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pushback {
    /// It said nothing.
    None,
    /// Not before this time has passed.
    After(Duration),
    /// Do not try again.
    Stop,
}

impl Outcome {
    const fn new(class: Class) -> Self {
        Self {
            class,
            sent: Sent::Maybe,
            pushback: NOTHING,
        }
    }

    /// The endpoint did its work.
    pub const fn success() -> Self {
        Self::new(Class::Success)
    }

    /// The endpoint failed.
    pub const fn failure() -> Self {
        Self::new(Class::Failure)
    }

    /// The endpoint has too much to do.
    pub const fn overload() -> Self {
        Self::new(Class::Overload)
    }

    /// The endpoint did not answer in time.
    pub const fn timeout() -> Self {
        Self::new(Class::Timeout)
    }

    /// Nothing can be said of the endpoint.
    pub const fn neutral() -> Self {
        Self::new(Class::Neutral)
    }

    /// The same, and the request surely did not reach the endpoint: even what is not idempotent may be tried again.
    #[must_use]
    pub const fn never_sent(mut self) -> Self {
        self.sent = Sent::Never;
        self
    }

    /// The same, with what the endpoint asked for about the next attempt.
    #[must_use]
    pub const fn with_pushback(mut self, pushback: Pushback) -> Self {
        self.pushback = match pushback {
            Pushback::None => NOTHING,
            Pushback::Stop => STOP,
            Pushback::After(wait) if wait.as_nanos() > LONGEST as u128 => LONGEST,
            Pushback::After(wait) => wait.as_nanos() as u64,
        };
        self
    }

    /// Whom it speaks for or against.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Whether the request may have reached the endpoint.
    pub const fn sent(&self) -> Sent {
        self.sent
    }

    /// What the endpoint asked for about the next attempt.
    pub const fn pushback(&self) -> Pushback {
        match self.pushback {
            NOTHING => Pushback::None,
            STOP => Pushback::Stop,
            nanos => Pushback::After(Duration::from_nanos(nanos)),
        }
    }

    /// Whether it counts for the endpoint.
    pub const fn is_success(&self) -> bool {
        matches!(self.class, Class::Success)
    }

    /// Whether it counts against the endpoint.
    pub const fn is_failure(&self) -> bool {
        matches!(
            self.class,
            Class::Failure | Class::Overload | Class::Timeout
        )
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcome")
            .field("class", &self.class)
            .field("sent", &self.sent)
            .field("pushback", &self.pushback())
            .finish()
    }
}

/// What a [`Classify`] answers: the outcome, or that only the end of the response will tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The outcome is known.
    Done(Outcome),
    /// The end of the response's body decides.
    Deferred,
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        Self::Done(outcome)
    }
}

/// Turns what a service answered into an [`Outcome`].
///
/// A classifier that always knows at once answers with `Outcome`; one that may have to wait for the end of the body
/// answers with [`Verdict`] and then needs a completion that [promises](Promises) it.
///
/// It is called outside any lock. If it panics the call panics, and counts as a failure.
pub trait Classify<Res>: Clone {
    /// `Outcome`, or `Verdict` if it may be deferred.
    type Answer: Into<Verdict>;

    /// What `result` says of the endpoint.
    fn classify(&self, result: Result<&Res, &(dyn Error + Send + Sync + 'static)>) -> Self::Answer;

    /// What `result` says, which is all there will be if it is an error: that has no body whose end could tell more.
    fn verdict(&self, result: &Result<Res, BoxError>) -> Verdict {
        match result {
            Ok(response) => self.classify(Ok(response)).into(),
            Err(error) => match self.classify(Err(&**error)).into() {
                Verdict::Deferred => ClassifyErrors::error(&**error).into(),
                done => done,
            },
        }
    }

    /// What the server says of its own load in `response`; asked for only by those who go by it. Nothing unless said.
    fn report(&self, response: &Res) -> Option<Report> {
        let _ = response;
        None
    }
}

/// A completion (tower's `TrackCompletion`) that brings about what an answer of type `A` leaves open.
///
/// Tower's `CompleteOnResponse` is over when the head is there, so it promises outcomes only: a classifier that defers
/// does not compile with it.
pub trait Promises<A> {}

impl Promises<Outcome> for tower::load::CompleteOnResponse {}

/// The default classifier: every response is a success, and an error is judged by the [`Refusal`] in its chain of
/// sources, or else is a failure of the endpoint.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ClassifyErrors;

impl ClassifyErrors {
    /// What an error says of the endpoint.
    pub fn error(error: &(dyn Error + Send + Sync + 'static)) -> Outcome {
        match Refusal::of(error) {
            Some(refusal) => refusal.outcome(),
            None => Outcome::failure(),
        }
    }
}

impl<Res> Classify<Res> for ClassifyErrors {
    type Answer = Outcome;

    fn classify(&self, result: Result<&Res, &(dyn Error + Send + Sync + 'static)>) -> Outcome {
        match result {
            Ok(_) => Outcome::success(),
            Err(error) => Self::error(error),
        }
    }
}

/// A closure over the result classifies.
impl<F, Res, A> Classify<Res> for F
where
    F: Fn(Result<&Res, &(dyn Error + Send + Sync + 'static)>) -> A + Clone,
    A: Into<Verdict>,
{
    type Answer = A;

    fn classify(&self, result: Result<&Res, &(dyn Error + Send + Sync + 'static)>) -> A {
        self(result)
    }
}

/// A guard that takes the outcome of what it guards, once; dropped without one, it is abandoned.
///
/// Completions that see the end of a body are generic over it.
pub trait Finish {
    /// Whether the outcome makes a difference to it. To who only holds something until the end it does not, and nobody need
    /// look for one.
    const LISTENS: bool = true;

    /// Takes the outcome; only the first counts.
    fn finish(&mut self, outcome: Outcome);
}

/// Makes a panic of what a guard guards a failure: a guard that is merely dropped while unwinding would pass for that of
/// a caller who went away.
#[derive(Debug)]
#[must_use = "dropped without being defused, it counts a failure"]
pub struct Bomb<'a, G: Finish>(&'a mut G);

impl<'a, G: Finish> Bomb<'a, G> {
    /// Stands beside what may panic from here on.
    #[inline]
    pub fn armed(guard: &'a mut G) -> Self {
        Self(guard)
    }

    /// It has not panicked.
    #[inline]
    pub fn defuse(self) {
        mem::forget(self);
    }

    /// Tells the guard the outcome before anything else can.
    #[inline]
    pub fn finish(&mut self, outcome: Outcome) {
        self.0.finish(outcome);
    }
}

impl<G: Finish> Drop for Bomb<'_, G> {
    #[cold]
    fn drop(&mut self) {
        self.0.finish(Outcome::failure());
    }
}
