//! Which of several sources is believed: the decision.

use std::time::Duration;

use tower_mesh_core::Instant;

/// How one source stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) said: Option<Said>,
    /// Since when it has not answered, or has said nothing that counts.
    pub(super) failing: Option<Instant>,
    /// Since when it has answered without a break.
    pub(super) good: Option<Instant>,
}

/// What a source has said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Endpoints; or that there are none, by an authority.
    Endpoints,
    /// An empty answer of a source that is no authority: it may be an accident.
    Suspect,
    /// It does not know the service.
    Unknown,
}

/// How patient the choice is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// How long a source that has been in use may fail.
    pub(super) failing: Duration,
    /// How long a better source has to be good before it is used again.
    pub(super) back: Duration,
}

/// How long a better source may be silent in the beginning. A first call waits for 5 s.
pub(super) const FIRST: Duration = Duration::from_secs(2);

impl Standing {
    pub(super) fn answered(&mut self, said: Said, now: Instant) {
        self.said = Some(said);
        match said {
            Said::Endpoints => {
                self.failing = None;
                self.good.get_or_insert(now);
            }
            Said::Suspect | Said::Unknown => {
                self.failing.get_or_insert(now);
                self.good = None;
            }
        }
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.failing.get_or_insert(now);
        self.good = None;
    }

    fn has_endpoints(&self) -> bool {
        self.said == Some(Said::Endpoints)
    }

    /// Until when it stays in use.
    fn usable_until(&self, patience: Patience) -> Instant {
        match (self.said, self.failing) {
            (None | Some(Said::Unknown), _) => Instant::from_nanos(0),
            (Some(_), Some(since)) => since + patience.failing,
            (Some(_), None) => Instant::NEVER,
        }
    }
}

/// Which source to use, in place of `current`; and when to ask again if nothing happens.
///
/// None while nobody has said anything that counts and a better one may yet.
pub(super) fn choose(
    all: &[Standing],
    current: Option<usize>,
    started: Instant,
    patience: Patience,
    now: Instant,
) -> (Option<usize>, Instant) {
    let Some(current) = current else {
        return first(all, started, now);
    };
    let until = all[current].usable_until(patience);
    let back = |s: &Standing| s.good.map(|since| since + patience.back);
    if now < until {
        let better = all[..current].iter();
        let returns = better
            .clone()
            .position(|s| back(s).is_some_and(|at| at <= now));
        if let Some(better) = returns {
            return (Some(better), Instant::NEVER);
        }
        let next = better.filter_map(back).chain([until]).min();
        return (Some(current), next.unwrap_or(Instant::NEVER));
    }
    // What has endpoints and does not fail; else what is in use, though it fails: the last that was good.
    let good = all.iter().position(|s| s.good.is_some());
    let known = || all.iter().position(Standing::has_endpoints);
    let kept = Some(current).filter(|_| all[current].said != Some(Said::Unknown));
    (
        good.or(kept).or_else(known).or(Some(current)),
        Instant::NEVER,
    )
}

fn first(all: &[Standing], started: Instant, now: Instant) -> (Option<usize>, Instant) {
    for (at, standing) in all.iter().enumerate() {
        if standing.has_endpoints() {
            return (Some(at), Instant::NEVER);
        }
        let silent = standing.said.is_none() && standing.failing.is_none();
        if silent && now < started + FIRST {
            return (None, started + FIRST);
        }
    }
    // Nobody has any: who says so is believed, if nobody is silent who might know better.
    let silent = |s: &Standing| s.said.is_none() && s.failing.is_none();
    if all.iter().any(silent) && now < started + FIRST {
        return (None, started + FIRST);
    }
    let says = all.iter().position(|s| s.said.is_some());
    (says, Instant::NEVER)
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1 << 60);
    const PATIENCE: Patience = Patience {
        failing: Duration::from_secs(10),
        back: Duration::from_secs(20),
    };

    fn at(seconds: u64) -> Instant {
        START + Duration::from_secs(seconds)
    }

    fn silent() -> Standing {
        Standing::default()
    }

    fn said(said: Said, when: u64) -> Standing {
        let mut standing = silent();
        standing.answered(said, at(when));
        standing
    }

    fn good(since: u64) -> Standing {
        said(Said::Endpoints, since)
    }

    fn failed(since: u64) -> Standing {
        let mut standing = silent();
        standing.failed(at(since));
        standing
    }

    fn was_good(failing: u64) -> Standing {
        let mut standing = good(0);
        standing.failed(at(failing));
        standing
    }

    fn chosen(all: &[Standing], current: Option<usize>, seconds: u64) -> Option<usize> {
        choose(all, current, START, PATIENCE, at(seconds)).0
    }

    #[test]
    fn the_first_that_has_endpoints_is_used_but_a_better_one_is_waited_for_a_moment() {
        assert_eq!(chosen(&[silent(), good(0)], None, 0), None);
        assert_eq!(chosen(&[silent(), good(0)], None, 2), Some(1));
        assert_eq!(chosen(&[good(0), silent()], None, 0), Some(0));
    }

    #[test]
    fn in_the_beginning_an_error_or_an_unknown_name_passes_on_at_once() {
        assert_eq!(chosen(&[failed(0), good(0)], None, 0), Some(1));
        assert_eq!(chosen(&[said(Said::Unknown, 0), good(0)], None, 0), Some(1));
        assert_eq!(chosen(&[said(Said::Suspect, 0), good(0)], None, 0), Some(1));
    }

    #[test]
    fn that_nobody_knows_the_service_is_said_when_all_have_spoken() {
        let unknown = said(Said::Unknown, 0);
        assert_eq!(chosen(&[unknown, silent()], None, 0), None);
        assert_eq!(chosen(&[failed(0), unknown], None, 0), Some(1));
        assert_eq!(chosen(&[unknown, silent()], None, 2), Some(0));
        assert_eq!(chosen(&[failed(0), failed(0)], None, 9), None);
    }

    #[test]
    fn a_source_that_fails_is_kept_for_a_while_and_one_that_forgets_the_name_is_not() {
        let forgot = said(Said::Unknown, 5);
        assert_eq!(chosen(&[was_good(5), good(0)], Some(0), 14), Some(0));
        assert_eq!(chosen(&[was_good(5), good(0)], Some(0), 15), Some(1));
        assert_eq!(chosen(&[forgot, good(0)], Some(0), 5), Some(1));
    }

    #[test]
    fn when_all_fail_the_last_that_was_good_stays() {
        assert_eq!(chosen(&[was_good(5), failed(0)], Some(0), 99), Some(0));
        assert_eq!(chosen(&[was_good(5), was_good(6)], Some(1), 99), Some(1));
    }

    #[test]
    fn the_better_one_is_used_again_when_it_has_been_good_for_a_while() {
        assert_eq!(chosen(&[good(30), good(0)], Some(1), 49), Some(1));
        assert_eq!(chosen(&[good(30), good(0)], Some(1), 50), Some(0));
        let (_, next) = choose(&[good(30), good(0)], Some(1), START, PATIENCE, at(31));
        assert_eq!(next, at(50));
        assert_eq!(chosen(&[good(49), failed(0)], Some(1), 49), Some(0));
    }

    #[test]
    fn one_that_comes_and_goes_does_not_draw_callers_to_and_fro() {
        let mut shaky = good(0);
        let mut current = Some(0);
        let mut switches = 0;
        for second in 0..300 {
            match second % 12 {
                0 => shaky.answered(Said::Endpoints, at(second)),
                1 => shaky.failed(at(second)),
                _ => {}
            }
            let next = chosen(&[shaky, good(0)], current, second);
            switches += u32::from(next != current);
            current = next;
        }
        assert_eq!(switches, 1, "to the steady one, and no more");
    }
}
