//! What decides where a limit moves.

use std::{fmt, time::Duration};

/// Decides where a limit moves. It knows no clock and no calls: it is told what happens, and answers with a limit.
///
/// Of the three things it can be told it hears those that [`hears`](Self::hears) names. What it answers is kept between
/// the bounds in [`Usage`] and in force at once. It is called under a lock, one call at a time, on the path of calls: it
/// must be quick, and must not call back.
///
/// [`Aimd`](super::Aimd) is the default; [`Gradient2`](super::Gradient2) and [`Gradient`](super::Gradient) are Netflix's
/// and Envoy's.
///
/// ```
/// use tower_mesh_limit::adaptive::{Algorithm, Hears, Move, Round, Usage, Why};
///
/// /// Halves at each overload, and never grows.
/// #[derive(Debug)]
/// struct Halving;
///
/// impl Algorithm for Halving {
///     fn hears(&self) -> Hears {
///         Hears::Overloads
///     }
///
///     fn overloaded(&mut self, usage: Usage, round: Round) -> Option<Move> {
///         (round == Round::This).then(|| Move::to(usage.limit / 2, Why::Overload))
///     }
/// }
/// ```
pub trait Algorithm: fmt::Debug + Send + 'static {
    /// What it wants to be told; asked once.
    fn hears(&self) -> Hears;

    /// An attempt was not answered in time, or the service said that it has too much to do.
    fn overloaded(&mut self, usage: Usage, round: Round) -> Option<Move> {
        let _ = (usage, round);
        None
    }

    /// A call has ended and given its permit back, however it ended. Of a failed attempt of it
    /// [`overloaded`](Self::overloaded) was told before. Told only while the limit is below its upper bound, or may soon
    /// be.
    fn returned(&mut self, usage: Usage) -> Option<Move> {
        let _ = usage;
        None
    }

    /// The limit was not raised as [`returned`](Self::returned) has said: calls take so long already that more of them
    /// would only wait for each other until their time is up.
    fn held(&mut self, usage: Usage) {
        let _ = usage;
    }

    /// Whether it need not hear of permits that come back until the next overload, if the limit is at its upper bound.
    ///
    /// By default so.
    fn is_calm(&self) -> bool {
        true
    }

    /// A [`Window`] has ended.
    fn measured(&mut self, usage: Usage, latencies: Latencies) -> Option<Move> {
        let _ = (usage, latencies);
        None
    }

    /// The limit was moved by somebody else: restored, or learned so long ago that it was forgotten.
    fn moved(&mut self, usage: Usage) {
        let _ = usage;
    }
}

/// What an [`Algorithm`] wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hears {
    /// Of overloads, and then of permits that come back. A call that succeeds costs nothing while all is well.
    Overloads,
    /// How long attempts take, window by window. Each attempt that succeeds is written down.
    Latencies(Window),
}

/// Over how many attempts latencies are told: a window ends with the first attempt after both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// For how long at least.
    pub length: Duration,
    /// Over how many attempts at least.
    pub samples: u64,
}

/// How long the attempts of a window took: those that succeeded, and those that ran out of time.
///
/// The latest 64 of them are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latencies {
    /// The mean.
    pub mean: Duration,
    /// Half of them took longer.
    pub median: Duration,
    /// The shortest.
    pub least: Duration,
}

/// How the limit is used when something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The limit.
    pub limit: usize,
    /// Permits that are out, that of the call concerned included.
    pub in_use: usize,
    /// The limit never goes below this.
    pub min: usize,
    /// The limit never goes above this.
    pub max: usize,
}

impl Usage {
    /// Whether at least half of the limit is in use: only then do calls that go well say anything of a higher one.
    pub const fn is_pressed(&self) -> bool {
        self.in_use >= self.limit.div_ceil(2)
    }
}

/// When the attempt began that met with overload. What was sent before the limit was last lowered says nothing of how it
/// is now, so one burst of failures is one reason to lower it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// Since the limit was last lowered.
    This,
    /// Before.
    Earlier,
}

/// Where a limit moves, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Move {
    pub(super) limit: usize,
    pub(super) why: Why,
}

impl Move {
    /// To `limit`, or the nearest that the bounds allow.
    pub const fn to(limit: usize, why: Why) -> Self {
        Self { limit, why }
    }
}

/// Why a limit was last moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// It was not: it is where it began.
    Start,
    /// Attempts met with overload.
    Overload,
    /// All attempts met with overload.
    Outage,
    /// It was in use, and calls went well.
    Growth,
    /// Attempts took longer, or less long, than before.
    Latency,
    /// What was learned is too old.
    Forgotten,
    /// It was restored from an earlier run.
    Restored,
    /// Its upper bound was moved, or somebody switched it off.
    Set,
}
