//! How many retries a service can bear: a share of its calls, and never many at once.

#[cfg(all(test, mesh_loom))]
mod concurrent;
mod earned;
#[cfg(all(test, not(mesh_loom)))]
mod model;
mod recent;
mod reserve;
#[cfg(all(test, not(mesh_loom)))]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use tower_mesh_core::{
    Instant, Ratio,
    sync::{AtomicU64, Ordering},
};

use self::{earned::Earned, reserve::Reserve};

/// Bounds retries to a share of the calls, so that they repair single failures and never multiply an outage.
///
/// Every call earns `share` of a retry when it is issued, every retry costs one. On top come `min_per_second` retries
/// whatever the traffic, for services that are seldom called. What is not used is lost: after `window` altogether, and
/// before that as far as it is more than was earned within `burst`. Without the latter a healthy hour would end in a
/// second of 1.5 to 2.8 times the traffic when the service fails.
///
/// The share is exact: with 30 %, of 10,000 calls that all fail 3,000 are tried again. First attempts never need the
/// budget.
///
/// | setting | default | why |
/// |---|---|---|
/// | `share` | 10 % | Google SRE; with 20 % a service loaded to 85 % does not recover from a hang of 10 s |
/// | `min_per_second` | 1 | the same |
/// | `window` | 10 s | Finagle |
/// | `burst` | 1 s | peaks at 1.2 times the traffic when a service fails |
///
/// # Clone
///
/// A clone is the same budget. The setters make another one, which shares nothing with the one they are called on.
///
/// # Differences from tower's `TpsBudget`
///
/// That one rounds the share up to 1/n (60 % becomes 100 %), takes a lock for each call, may overspend when threads
/// meet, and has no cap on bursts.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    settings: Settings,
    earned: Earned,
    reserve: Reserve,
    withdrawals: AtomicU64,
    refused: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    share: Ratio,
    min_per_second: u32,
    window: Duration,
    burst: Duration,
}

/// What a [`Budget`] holds, and what became of those who asked.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
#[non_exhaustive]
pub struct BudgetSnapshot {
    /// Retries that could be made at once; the fraction is what has been earned of the next.
    pub balance: f64,
    /// Calls that were issued.
    pub deposits: u64,
    /// Retries that were made, and hedges.
    pub withdrawals: u64,
    /// Retries that were refused because the budget was empty.
    pub refused: u64,
}

impl Budget {
    /// Allows retries for `share` of the calls.
    pub fn new(share: Ratio) -> Self {
        Self::with(Settings {
            share,
            min_per_second: 1,
            window: Duration::from_secs(10),
            burst: Duration::from_secs(1),
        })
    }

    fn with(settings: Settings) -> Self {
        let Settings {
            share,
            min_per_second,
            window,
            ..
        } = settings;
        let burst = settings.burst.min(window);
        Self(Arc::new(Shared {
            settings,
            earned: Earned::new(share, window, burst),
            reserve: Reserve::new(min_per_second, burst),
            withdrawals: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }))
    }

    /// Sets how many retries a second are allowed whatever the traffic.
    #[must_use]
    pub fn min_per_second(self, retries: u32) -> Self {
        Self::with(Settings {
            min_per_second: retries,
            ..self.0.settings
        })
    }

    /// Sets for how long a call counts.
    #[must_use]
    pub fn window(self, window: Duration) -> Self {
        Self::with(Settings {
            window,
            ..self.0.settings
        })
    }

    /// Sets how many retries may be made at once: what was earned within `burst`, or one.
    ///
    /// The window (or more) means no cap, as in Finagle and tower.
    #[must_use]
    pub fn burst(self, burst: Duration) -> Self {
        Self::with(Settings {
            burst,
            ..self.0.settings
        })
    }

    /// Counts a call that is issued; retries do not count.
    #[inline]
    pub fn deposit(&self, now: Instant) {
        self.0.earned.deposit(now.as_nanos());
    }

    /// Takes out one retry, if there is one.
    pub fn withdraw(&self, now: Instant) -> Option<Withdrawal> {
        let shared = &*self.0;
        let source = if shared.earned.withdraw(now.as_nanos()) {
            Source::Earned
        } else if shared.reserve.withdraw(now.as_nanos()) {
            Source::Reserve
        } else {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        Some(self.withdrawal(source))
    }

    /// Takes out one of those that calls have earned, and none of those that are allowed whatever the traffic: for a
    /// hedge, which nobody needs. With a floor its share would be a lie at low rates.
    ///
    /// A refusal is not counted here: it means that a call was not hedged, not that one has failed.
    pub fn withdraw_earned(&self, now: Instant) -> Option<Withdrawal> {
        let earned = self.0.earned.withdraw(now.as_nanos());
        earned.then(|| self.withdrawal(Source::Earned))
    }

    fn withdrawal(&self, source: Source) -> Withdrawal {
        Withdrawal {
            budget: self.clone(),
            source,
            spent: false,
        }
    }

    /// What it holds now, and what became of those who asked.
    pub fn snapshot(&self, now: Instant) -> BudgetSnapshot {
        let Shared {
            earned, reserve, ..
        } = &*self.0;
        BudgetSnapshot {
            balance: earned.balance(now.as_nanos()) + reserve.balance(now.as_nanos()),
            deposits: earned.deposits(),
            withdrawals: self.0.withdrawals.load(Ordering::Relaxed),
            refused: self.0.refused.load(Ordering::Relaxed),
        }
    }
}

/// 10 % of the calls and one a second, see [`Budget`].
impl Default for Budget {
    fn default() -> Self {
        Self::new(Ratio::percent(10))
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &*self.0;
        f.debug_struct("Budget")
            .field("settings", &shared.settings)
            .field("deposits", &shared.earned.deposits())
            .field("withdrawals", &shared.withdrawals.load(Ordering::Relaxed))
            .field("refused", &shared.refused.load(Ordering::Relaxed))
            .finish()
    }
}

/// One retry taken out of a [`Budget`]; dropped before it is [spent](Self::spend) it goes back.
#[must_use = "dropped, it goes back"]
#[derive(Debug)]
pub struct Withdrawal {
    budget: Budget,
    source: Source,
    spent: bool,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Earned,
    Reserve,
}

impl Withdrawal {
    /// The retry is being made.
    pub fn spend(mut self) {
        self.spent = true;
        self.budget.0.withdrawals.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if !self.spent {
            match self.source {
                Source::Earned => self.budget.0.earned.give_back(),
                Source::Reserve => self.budget.0.reserve.give_back(),
            }
        }
    }
}
