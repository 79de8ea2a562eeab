//! Overload and outages: whether the shipped `MeshService` comes out of what others do not (`cargo xtask sim`).
//!
//! Scenarios and numbers are those of the study that the defaults were chosen by. What runs is the real client with the
//! default policy, its clock, chance and endpoints' services injected; only the times of a call are the study's, 2 s
//! with 500 ms for an attempt, so that a minute is long enough to see what they do.
//!
//! | | scenario | small, one of the seeds |
//! |---|---|---|
//! | S1 | all servers refuse, hang, or are four times slower, for 10 s | a quarter of the fleet and of the clients |
//! | S2 | all servers are four times slower, for a minute | the same |
//! | S4 | all breakers have opened, and what was behind them comes back with a fifth of its capacity | a tenth of the clients |
//! | S5 | a server joins a hundred | 20 servers, 50 clients |
//! | S6 | the registry is out for ten minutes | fewer calls |
//! | S7 | every tenth server is up for 2 s and down for 2 s | a quarter |
//! | S8 | every server is replaced within a minute | a quarter |
//! | S9 | every server fails | a quarter |
//! | S10 | servers are asked for twice what they can do, by three classes of requests | a fifth; other shares of the classes, other loads |
//!
//! S1 has a chain of three layers, too: their retries do not multiply.

mod blackout;
mod chain;
mod chance;
mod deploy;
mod figure;
mod flapping;
mod herd;
mod known;
mod mutant;
mod newcomer;
mod outage;
mod priorities;
mod slow;
mod total;
mod world;

use std::fmt;

pub use self::{
    figure::{Bar, Figure},
    known::Verdict,
    mutant::{Mutant, Notice},
};

/// What happens to a fleet and its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Storm {
    /// S1: ten seconds in which nothing is answered in time.
    Outage,
    /// S2: a minute in which the servers have a quarter of their capacity.
    Slow,
    /// S4: everybody's breakers let probes through at the same time.
    Herd,
    /// S5: a server is new.
    Newcomer,
    /// S6: the registry is out.
    Blackout,
    /// S7: servers that come and go.
    Flapping,
    /// S8: every server is replaced.
    Deploy,
    /// S9: nobody is left.
    Total,
    /// S10: more to do than can be done.
    Priorities,
}

/// How large a fleet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As the study has it, and at both of its loads: for fixed seeds.
    Full,
    /// A part of that, with the rest left to chance too: what goes wrong, when, and at what load. For many seeds.
    Small,
}

/// One run: the same is always the same, to the bit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// What happens.
    pub storm: Storm,
    /// How large the fleet is.
    pub size: Size,
    /// Decides all that is left to chance.
    pub seed: u64,
    /// What is broken, to see that it is noticed.
    pub mutant: Option<Mutant>,
}

impl Storm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Outage,
        Self::Slow,
        Self::Herd,
        Self::Newcomer,
        Self::Blackout,
        Self::Flapping,
        Self::Deploy,
        Self::Total,
        Self::Priorities,
    ];

    /// The same, those first whose full runs take the longest.
    pub const LONGEST_FIRST: [Self; 9] = [
        Self::Newcomer,
        Self::Outage,
        Self::Blackout,
        Self::Herd,
        Self::Flapping,
        Self::Slow,
        Self::Deploy,
        Self::Priorities,
        Self::Total,
    ];

    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Outage => "S1",
            Self::Slow => "S2",
            Self::Herd => "S4",
            Self::Newcomer => "S5",
            Self::Blackout => "S6",
            Self::Flapping => "S7",
            Self::Deploy => "S8",
            Self::Total => "S9",
            Self::Priorities => "S10",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|storm| storm.name().eq_ignore_ascii_case(name))
    }

    /// The one that a seed stands for, if nothing else is said.
    pub fn of(seed: u64) -> Self {
        Self::ALL[(seed % Self::ALL.len() as u64) as usize]
    }
}

impl Run {
    /// Runs it, and gives what came of it.
    pub fn figures(&self) -> Vec<Figure> {
        match self.storm {
            Storm::Outage => outage::run(self),
            Storm::Slow => slow::run(self),
            Storm::Herd => herd::run(self),
            Storm::Newcomer => newcomer::run(self),
            Storm::Blackout => blackout::run(self),
            Storm::Flapping => flapping::run(self),
            Storm::Deploy => deploy::run(self),
            Storm::Total => total::run(self),
            Storm::Priorities => priorities::run(self),
        }
    }

    /// What is said of each of its figures.
    pub fn judge(&self, figures: &[Figure]) -> Vec<Verdict> {
        figures
            .iter()
            .map(|figure| known::judge(self, figure))
            .collect()
    }
}

/// The command line that runs it again.
impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scenario, seed) = (self.storm.name(), self.seed);
        write!(f, "cargo xtask sim --scenario {scenario} --seed {seed}")?;
        if self.size == Size::Full {
            f.write_str(" --full")?;
        }
        match self.mutant {
            Some(mutant) => write!(f, " --mutant {}", mutant.name()),
            None => Ok(()),
        }
    }
}
