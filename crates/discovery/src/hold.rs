//! Whether an answer that takes most endpoints away is too bad to be true.

use std::time::Duration;

use tower_mesh_core::Instant;

/// Holds the old endpoints against an answer that loses most of them, for a time.
///
/// The time runs from the first such answer. It ends early with an answer that is whole again; when it is over, the
/// answer is believed, unless the source fails: then it has not confirmed what it said, and its next answer decides.
#[derive(Debug)]
pub(crate) struct Hold {
    grace: Duration,
    until: Option<Instant>,
}

/// What became of the hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Begun,
    /// The endpoints are back.
    Unfounded,
    /// They do not come back.
    Believed,
}

impl Hold {
    /// With a `grace` of zero every answer is believed.
    pub(crate) const fn new(grace: Duration) -> Self {
        Self { grace, until: None }
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// When the answer is to be believed, unless the source fails then.
    pub(crate) const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Judges an answer that has just come.
    pub(crate) fn judge(&mut self, loses_most: bool, now: Instant) -> Option<Turn> {
        match self.until {
            None if loses_most && !self.grace.is_zero() => {
                self.until = Some(now + self.grace);
                Some(Turn::Begun)
            }
            Some(until) if loses_most && now >= until => self.end(Turn::Believed),
            Some(_) if !loses_most => self.end(Turn::Unfounded),
            _ => None,
        }
    }

    /// Ends the hold if its time is over.
    pub(crate) fn expire(&mut self, failing: bool, now: Instant) -> Option<Turn> {
        let over = !failing && self.until.is_some_and(|until| now >= until);
        over.then(|| self.end(Turn::Believed)).flatten()
    }

    fn end(&mut self, turn: Turn) -> Option<Turn> {
        self.until = None;
        Some(turn)
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);
    const START: Instant = Instant::from_nanos(1 << 60);

    fn begun() -> Hold {
        let mut hold = Hold::new(GRACE);
        assert_eq!(hold.judge(true, START), Some(Turn::Begun));
        hold
    }

    #[test]
    fn a_whole_answer_is_believed_and_so_is_every_answer_without_grace() {
        assert_eq!(Hold::new(GRACE).judge(false, START), None);
        let mut hold = Hold::new(Duration::ZERO);
        assert_eq!(hold.judge(true, START), None);
        assert!(!hold.is_on());
    }

    #[test]
    fn the_time_runs_from_the_first_suspect_answer() {
        let mut hold = begun();
        assert_eq!(hold.judge(true, START + GRACE / 2), None);
        assert_eq!(
            hold.expire(false, START + GRACE - Duration::from_nanos(1)),
            None
        );
        assert_eq!(hold.expire(false, START + GRACE), Some(Turn::Believed));
        assert!(!hold.is_on());
    }

    #[test]
    fn a_whole_answer_ends_it_early() {
        let mut hold = begun();
        assert_eq!(hold.judge(false, START + GRACE / 2), Some(Turn::Unfounded));
        assert_eq!(hold.expire(false, START + GRACE), None);
    }

    #[test]
    fn a_source_that_fails_confirms_nothing() {
        let mut hold = begun();
        assert_eq!(hold.expire(true, START + 10 * GRACE), None);
        assert!(hold.is_on());
        assert_eq!(hold.judge(true, START + 20 * GRACE), Some(Turn::Believed));
    }
}
