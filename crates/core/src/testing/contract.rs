//! Whether a service keeps to tower's contract: also when it is cloned, dropped half-way, or when what it calls panics.
//!
//! [`Contract::check`] makes the service again and again over an [`Inner`] whose readiness, answers and panics it
//! controls, and looks from both sides at what happens: [`Rule`] lists what must hold. It says which rules were broken
//! and in which situation.
//!
//! The service must be such that a single failure does not change how it treats the next call (a breaker with a
//! threshold above one, say). Its timers run on tokio's clock, which the test has to pause, or on a
//! [`Clock::manual`](crate::Clock::manual) that is handed over by [`Contract::on_clock`].
//!
//! # Example
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use tower_mesh_core::testing::contract::{Contract, Rule, Subject};
//!
//! # use tower_layer::{Identity as YourLayer, Layer};
//! Contract::new(|| "request", || "response")
//!     // It hands `poll_ready` through, so a clone that is ready and idle holds what the inner service holds.
//!     .without(Rule::IdleHoldsNothing)
//!     .check(|inner| Subject::new(YourLayer::new().layer(inner)))
//!     .await
//!     .expect("it keeps the contract");
//! # }
//! ```

mod inner;
mod run;
mod scene;
mod scenes;

use std::{fmt, sync::Arc, time::Duration};

use tower_service::Service;

pub use self::inner::{Inner, InnerFuture};
use self::{run::Time, scenes::Scenes};
use super::violations::Violations;
use crate::time::ManualClock;

/// What has to hold of every service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// Made ready and called it answers, whenever the inner service does.
    Answers,
    /// Cloned between ready and call, it answers, and so does the clone once it was made ready itself.
    AnswersCloned,
    /// Made ready and dropped, it gives back what readiness had taken.
    DroppedWhenReady,
    /// Dropped at any point of a call, it leaves the calls after it alone.
    DroppedAnywhere,
    /// A clone that is ready and idle keeps no other from calling. Not so of services that hand `poll_ready` through.
    IdleHoldsNothing,
    /// While it has nothing to do it does not wake itself.
    NeverWakesItself,
    /// A panic of the inner service harms no other call.
    SurvivesPanics,
    /// It calls an instance of the inner service only if it has polled that very instance ready.
    CallsOnlyTheReady,
    /// It never polls a future that has ended.
    LeavesTheFinished,
    /// It calls the inner service no more often than [`Contract::attempts`] says.
    KeepsToAttempts,
    /// It ends when [`Contract::ends_within`] says.
    EndsInTime,
    /// Of calls that wait for each other, each is woken when it can go on, whichever of them is dropped.
    LosesNoWakeup,
    /// When no call runs, [`Subject::at_rest`] finds everything given back.
    AtRest,
    /// Each attempt that ends has one outcome in [`Subject::tally`], a panic a failure; one that was dropped has none.
    OneOutcome,
    /// With a call, what it called is dropped; with the service, what it held.
    TakesAlong,
}

impl Rule {
    /// The rule as [`Violations`] names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answers => "ready and called, it answers",
            Self::AnswersCloned => "cloned when ready, both answer",
            Self::DroppedWhenReady => "dropped when ready, it gives back what it held",
            Self::DroppedAnywhere => "dropped anywhere, it leaves other calls alone",
            Self::IdleHoldsNothing => "an idle clone holds nothing",
            Self::NeverWakesItself => "it never wakes itself",
            Self::SurvivesPanics => "a panic beneath harms no other call",
            Self::CallsOnlyTheReady => "it calls only what it has made ready",
            Self::LeavesTheFinished => "it never polls what has ended",
            Self::KeepsToAttempts => "it calls no more often than it may",
            Self::EndsInTime => "it ends in time",
            Self::LosesNoWakeup => "no wake-up is lost",
            Self::AtRest => "at rest everything is given back",
            Self::OneOutcome => "each attempt has one outcome",
            Self::TakesAlong => "dropped, it drops what it called",
        }
    }
}

/// The service to be examined, and how to look into it.
pub struct Subject<S> {
    service: S,
    at_rest: Option<Box<dyn Fn() -> Result<(), String>>>,
    tally: Option<Box<dyn Fn() -> Tally>>,
}

/// How many attempts have ended, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tally {
    /// Attempts that succeeded.
    pub successes: u64,
    /// Attempts that failed, panics among them.
    pub failures: u64,
}

impl<S> Subject<S> {
    /// Examines `service` from outside.
    pub fn new(service: S) -> Self {
        Self {
            service,
            at_rest: None,
            tally: None,
        }
    }

    /// Also asks `check` whenever no call runs: whether nothing is in flight, all permits are back, no probe is out. It
    /// says what is not as it should be.
    #[must_use]
    pub fn at_rest(mut self, check: impl Fn() -> Result<(), String> + 'static) -> Self {
        self.at_rest = Some(Box::new(check));
        self
    }

    /// Also compares how many attempts `tally` has counted with how the inner service has ended. An error of the inner
    /// service is an ordinary one: a failure.
    #[must_use]
    pub fn tally(mut self, tally: impl Fn() -> Tally + 'static) -> Self {
        self.tally = Some(Box::new(tally));
        self
    }
}

impl<S: fmt::Debug> fmt::Debug for Subject<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

/// The examination: what to send and to answer, and what the service may do.
pub struct Contract<Req, Res> {
    request: Box<dyn Fn() -> Req>,
    response: Arc<dyn Fn() -> Res + Send + Sync>,
    time: Time,
    attempts: u32,
    ends_within: Option<Duration>,
    without: Vec<Rule>,
}

impl<Req, Res: 'static> Contract<Req, Res> {
    /// Sends what `request` makes, and lets the inner service answer with what `response` makes.
    pub fn new(
        request: impl Fn() -> Req + 'static,
        response: impl Fn() -> Res + Send + Sync + 'static,
    ) -> Self {
        Self {
            request: Box::new(request),
            response: Arc::new(response),
            time: Time::Tokio,
            attempts: 1,
            ends_within: None,
            without: Vec::new(),
        }
    }

    /// Lets time pass on this clock, instead of tokio's.
    #[must_use]
    pub fn on_clock(mut self, clock: ManualClock) -> Self {
        self.time = Time::Manual(clock);
        self
    }

    /// How often a call may call the inner service; once unless said.
    #[must_use]
    pub fn attempts(mut self, most: u32) -> Self {
        self.attempts = most;
        self
    }

    /// A call ends after `time` even if the inner service never answers.
    #[must_use]
    pub fn ends_within(mut self, time: Duration) -> Self {
        self.ends_within = Some(time);
        self
    }

    /// Does not ask for `rule`.
    #[must_use]
    pub fn without(mut self, rule: Rule) -> Self {
        self.without.push(rule);
        self
    }

    /// Examines the services that `make` makes, each over an inner service of its own.
    ///
    /// # Errors
    ///
    /// [`Violations`] lists the rules that were broken, each with the first situation in which it was.
    pub async fn check<S>(&self, make: impl Fn(Inner<Res>) -> Subject<S>) -> Result<(), Violations>
    where
        S: Service<Req> + Clone,
    {
        let scenes = Scenes::new(self, make).play();
        // Many polls without a yield are the point here; tokio would take them for greed and make its timers spin.
        tokio::task::unconstrained(scenes).await
    }
}

impl<Req, Res> fmt::Debug for Contract<Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contract")
            .field("attempts", &self.attempts)
            .field("ends_within", &self.ends_within)
            .field("without", &self.without)
            .finish_non_exhaustive()
    }
}
