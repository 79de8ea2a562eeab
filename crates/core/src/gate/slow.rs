//! An endpoint that is new or back begins with a small share of the calls: since when, and until somebody says it is over.

use super::{Gate, Ordering};
use crate::time::Instant;

/// The bit beside the judges' flags. It keeps nobody from calling: it only sends whoever compares endpoints the long way
/// round, so that one that does not begin costs nothing to ask.
pub(super) const SLOW: u64 = 1 << 7;

impl Gate {
    /// Whether every judge is content and the endpoint is not beginning slowly: one load.
    #[inline]
    pub fn is_settled(&self) -> bool {
        self.word.load(Ordering::Acquire) & super::FLAGS == 0
    }

    /// Lets the endpoint begin slowly from `now` on, as if it were new.
    ///
    /// A gate that a judge opens again begins so by itself, at the time when somebody first asks.
    pub fn begin_slowly(&self, now: Instant) {
        self.slow_since.store(now.as_nanos(), Ordering::Relaxed);
        self.word.fetch_or(SLOW, Ordering::AcqRel);
    }

    /// Since when the endpoint begins slowly, if it does.
    pub fn slow_since(&self, now: Instant) -> Option<Instant> {
        if self.word.load(Ordering::Acquire) & SLOW == 0 {
            return None;
        }
        let now = now.as_nanos().max(1);
        let since = &self.slow_since;
        match since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Some(Instant::from_nanos(now)),
            Err(since) => Some(Instant::from_nanos(since)),
        }
    }

    /// From now on it takes its full share.
    pub fn end_slow_start(&self) {
        self.word.fetch_and(!SLOW, Ordering::AcqRel);
    }

    /// What becomes of a word when the judge with `flag` is content again: who was out begins slowly. When, is not known
    /// here: judges have no clock at hand.
    pub(super) fn opened(&self, word: u64, flag: u64) -> u64 {
        if word & flag == 0 {
            return word;
        }
        self.slow_since.store(0, Ordering::Relaxed);
        word & !flag | SLOW
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use crate::{gate::JudgeKind, time::Instant, vitals::Vitals};

    const NOW: Instant = Instant::from_nanos(1 << 60);

    #[test]
    fn who_is_let_in_again_begins_when_somebody_first_asks() {
        let vitals = Vitals::detached();
        let gate = vitals.gate();
        assert!(gate.is_settled());
        gate.set(JudgeKind::Outlier, false);
        assert_eq!(gate.slow_since(NOW), None, "it was never out");
        gate.set(JudgeKind::Outlier, true);
        assert_eq!(gate.slow_since(NOW), None, "it is out");
        gate.set(JudgeKind::Outlier, false);
        assert!(gate.is_open() && !gate.is_settled());
        let later = NOW + std::time::Duration::from_secs(1);
        assert_eq!(gate.slow_since(NOW), Some(NOW));
        assert_eq!(gate.slow_since(later), Some(NOW));
        gate.end_slow_start();
        assert!(gate.is_settled() && gate.slow_since(later).is_none());
    }

    #[test]
    fn a_breaker_that_closes_lets_it_begin_again_and_its_epoch_stays() {
        let vitals = Vitals::detached();
        let gate = vitals.gate();
        gate.begin_slowly(NOW);
        gate.set_epoch(JudgeKind::Breaker, 1, true);
        gate.set_epoch(JudgeKind::Breaker, 2, false);
        let later = NOW + std::time::Duration::from_secs(1);
        assert_eq!(gate.slow_since(later), Some(later));
        let ticket = gate.admit(later).expect("it keeps nobody out");
        assert_eq!((ticket.epoch(), ticket.is_probe()), (2, false));
        gate.set_epoch(JudgeKind::Breaker, 1, true);
        assert!(gate.is_open(), "of an older epoch");
    }
}
