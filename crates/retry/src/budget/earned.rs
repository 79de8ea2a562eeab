//! The retries that calls have earned.

use std::time::Duration;

use tower_mesh_core::{
    Ratio,
    sync::{AtomicU64, Ordering, Padded, thread_number},
};

use super::recent::Recent;

/// One retry, in the unit of the account: shares are exact to a ten-thousandth of a per cent.
const ONE: u64 = 1_000_000;

/// A power of two, so that finding one's own takes no division. Few in the models, which try every order of every load.
const SHARDS: usize = if cfg!(mesh_loom) { 2 } else { 8 };

/// An account kept as a line that only grows: calls move its far end on, withdrawals and expiry follow from behind, and
/// what lies between is the balance.
///
/// So a withdrawal is one compare-and-swap of one word, which no call writes. It cannot overdraw however threads meet:
/// who has not seen the latest calls sees less than there is.
pub(super) struct Earned {
    /// What a call earns.
    share: u64,
    /// Calls, counted by each thread for itself: it is the only thing that every call writes.
    calls: [Padded<AtomicU64>; SHARDS],
    /// Up to where the line is spent or has expired. Both ends wrap; expiry keeps them so near that it does not matter.
    spent: AtomicU64,
    burst: Recent,
    window: Recent,
}

impl Earned {
    pub(super) fn new(share: Ratio, window: Duration, burst: Duration) -> Self {
        Self {
            share: (share.get() * ONE as f64).round() as u64,
            calls: std::array::from_fn(|_| Padded(AtomicU64::new(0))),
            spent: AtomicU64::new(0),
            burst: Recent::new(burst),
            window: Recent::new(window),
        }
    }

    #[inline]
    pub(super) fn deposit(&self, now: u64) {
        if self.burst.is_over(now) {
            self.turn(now);
        }
        self.calls[thread_number() % SHARDS]
            .0
            .fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn deposits(&self) -> u64 {
        let calls = self.calls.iter();
        calls.fold(0, |sum, n| sum.wrapping_add(n.0.load(Ordering::Relaxed)))
    }

    pub(super) fn withdraw(&self, now: u64) -> bool {
        self.turn(now);
        self.spent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spent| {
                let (from, balance) = self.rest(spent);
                (balance >= ONE).then(|| from.wrapping_add(ONE))
            })
            .is_ok()
    }

    /// Undoes one withdrawal.
    pub(super) fn give_back(&self) {
        self.spent.fetch_sub(ONE, Ordering::Relaxed);
    }

    /// In retries.
    pub(super) fn balance(&self, now: u64) -> f64 {
        self.turn(now);
        let (_, balance) = self.rest(self.spent.load(Ordering::Relaxed));
        balance as f64 / ONE as f64
    }

    /// From where on the line is neither spent nor expired, and how long it is from there.
    fn rest(&self, spent: u64) -> (u64, u64) {
        let calls = self.deposits();
        let end = calls.wrapping_mul(self.share);
        let earned_since = |base: u64| self.share.saturating_mul(calls.saturating_sub(base));
        // Where the time of a burst earns less than one retry, one may still be saved up, together with what the call
        // that completes it brings over and above: if that were cut off, the share would not be exact.
        let at_once = earned_since(self.burst.base()).max(ONE + self.share.saturating_sub(1));
        let in_window = earned_since(self.window.base());
        let at_most = at_once.min(in_window);
        // Negative when another thread has seen, and spent, more calls than this one sees.
        match u64::try_from(end.wrapping_sub(spent) as i64) {
            Ok(unspent) if unspent <= at_most => (spent, unspent),
            Ok(_) => (end.wrapping_sub(at_most), at_most),
            Err(_) => (spent, 0),
        }
    }

    /// Begins a new slice of time, and lets expire what is too old.
    #[cold]
    fn turn(&self, now: u64) {
        if !self.burst.is_over(now) {
            return;
        }
        self.burst.turn(now, || self.deposits());
        self.window.turn(now, || self.deposits());
        let spent = self.spent.load(Ordering::Relaxed);
        let (from, _) = self.rest(spent);
        // If it has changed meanwhile, whoever changed it has seen to that.
        let _ = self
            .spent
            .compare_exchange(spent, from, Ordering::Relaxed, Ordering::Relaxed);
    }
}
