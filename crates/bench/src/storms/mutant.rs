//! What is broken, to see that it is noticed.

use std::{num::NonZeroU32, time::Duration};

use tower_mesh::{Policy, balance::Strategy, core::Ratio};

use super::{Figure, Run, Size, Storm};

/// One thing that is broken: by a setting, or by what stands around the mesh. No source is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// The limit of calls in flight does not adapt.
    NoLimit,
    /// No limit that adapts, no ejection and no breakers: the budget is alone.
    BudgetAlone,
    /// The same, and a retry for each call.
    NoBudget,
    /// No ejection and no breakers: whoever fails stays.
    NoJudges,
    /// The same, and nobody compares: each endpoint in its turn, however it fares.
    Blind,
    /// A new endpoint is given its share at once.
    NoSlowStart,
    /// The registry is believed whatever it says.
    Credulous,
    /// Clients hear ten seconds late that a server is gone.
    ToldLate,
    /// Too many may be out: there is no panic.
    NoPanic,
    /// No request is believed to matter more than another.
    NoPriorities,
    /// The budget is alone, and who is answered does not hear that it was tried already.
    Untold,
}

impl Mutant {
    /// What has to be noticed, by which scenario and by which of its figures.
    pub const ALL: [Notice; 12] = [
        Notice::new(Self::NoLimit, Storm::Outage, "seconds until"),
        // Limit and breakers keep retries away, too: only without them the budget is missed.
        Notice {
            beside: Some(Self::BudgetAlone),
            ..Notice::new(Self::NoBudget, Storm::Outage, "attempts a call")
        },
        Notice::new(Self::NoLimit, Storm::Slow, "calls answered"),
        Notice::new(
            Self::NoLimit,
            Storm::Herd,
            "how often a breaker opens again",
        ),
        Notice::new(Self::NoSlowStart, Storm::Newcomer, "its peak"),
        Notice::new(Self::Credulous, Storm::Blackout, "calls lost"),
        Notice::new(Self::NoJudges, Storm::Flapping, "the longest time out"),
        Notice::new(Self::Blind, Storm::Flapping, "the others' p99 to that"),
        Notice::new(Self::ToldLate, Storm::Deploy, "attempts that failed"),
        Notice::new(Self::NoPanic, Storm::Total, "servers that are tried"),
        Notice::new(
            Self::NoPriorities,
            Storm::Priorities,
            "critical requests answered",
        ),
        // With limits and breakers nearly nothing comes through a chain while its end fails.
        Notice {
            beside: Some(Self::BudgetAlone),
            ..Notice::new(Self::Untold, Storm::Outage, "at the end of a chain")
        },
    ];

    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoLimit => "no-limit",
            Self::BudgetAlone => "budget-alone",
            Self::NoBudget => "no-budget",
            Self::NoJudges => "no-judges",
            Self::Blind => "blind",
            Self::NoSlowStart => "no-slow-start",
            Self::Credulous => "credulous",
            Self::ToldLate => "told-late",
            Self::NoPanic => "no-panic",
            Self::NoPriorities => "no-priorities",
            Self::Untold => "untold",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        let noticed = Self::ALL.into_iter().map(|notice| notice.mutant);
        let mut all = noticed.chain([Self::BudgetAlone]);
        all.find(|mutant| mutant.name() == name)
    }

    /// Breaks it, if a setting does.
    pub(super) fn breaks(self, policy: &mut Policy) {
        match self {
            Self::NoLimit => policy.limit.adaptive = false,
            Self::BudgetAlone | Self::Untold => {
                Self::NoLimit.breaks(policy);
                Self::NoJudges.breaks(policy);
            }
            Self::NoBudget => {
                Self::BudgetAlone.breaks(policy);
                policy.retry.budget = Ratio::ONE;
                policy.retry.min_per_second = 1_000;
            }
            Self::NoJudges => {
                policy.ejection.enabled = false;
                policy.breaker.consecutive_failures = NonZeroU32::MAX;
                policy.breaker.failure_rate = Ratio::ONE;
            }
            Self::Blind => {
                Self::NoJudges.breaks(policy);
                policy.balance = Strategy::RoundRobin;
            }
            Self::NoSlowStart => policy.slow_start = Duration::ZERO,
            Self::NoPanic => {
                policy.panic.max_out = Ratio::ONE;
                policy.panic.min_healthy = 0;
            }
            Self::Credulous | Self::ToldLate | Self::NoPriorities => {}
        }
    }
}

/// A scenario that has to notice a mutant.
#[derive(Clone, Copy, Debug)]
pub struct Notice {
    mutant: Mutant,
    storm: Storm,
    /// What the figure's name begins with.
    by: &'static str,
    /// What it is compared with; the mesh as it is, if nothing.
    beside: Option<Mutant>,
}

impl Notice {
    const fn new(mutant: Mutant, storm: Storm, by: &'static str) -> Self {
        Self {
            mutant,
            storm,
            by,
            beside: None,
        }
    }

    /// The run that has to fail.
    pub fn run(&self, seed: u64) -> Run {
        Run {
            storm: self.storm,
            size: Size::Full,
            seed,
            mutant: Some(self.mutant),
        }
    }

    /// Whether the mutant fails what the mesh as it is passes; gives the mutant's figure.
    ///
    /// # Errors
    ///
    /// What was looked for, if it does not.
    pub fn notices(&self, seed: u64) -> Result<Figure, String> {
        let mutant = self.run(seed);
        let sound = Run {
            mutant: self.beside,
            ..mutant
        };
        let sound = sound.figures();
        let holds = |figure: &Figure| {
            let mut sound = sound.iter();
            sound.any(|other| other.what == figure.what && other.holds())
        };
        let mut figures = mutant.figures().into_iter();
        let found = figures
            .find(|figure| figure.what.starts_with(self.by) && !figure.holds() && holds(figure));
        found.ok_or_else(|| {
            format!(
                "no figure of \"{}\" holds without it and fails with it",
                self.by
            )
        })
    }
}
