//! Whether it gets better.

use crate::components::status::Status;

/// Where a component is going, by its latest reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Trend {
    /// The newer half of its reports is better than the older.
    Improving,
    /// It goes on as before, or there are too few reports to tell.
    #[default]
    Steady,
    /// The newer half is worse.
    Worsening,
}

impl Trend {
    /// The word for it in logs, labels and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Improving => "improving",
            Self::Steady => "steady",
            Self::Worsening => "worsening",
        }
    }
}

/// How many reports are remembered: at one in 10 s, those of the last minutes.
const REMEMBERED: usize = 16;

/// Below so many reports there is no trend.
const ENOUGH: usize = 4;

/// The latest reports, in a ring.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    latest: [u8; REMEMBERED],
    reports: usize,
}

impl History {
    pub(crate) fn push(&mut self, status: Status) {
        self.latest[self.reports % REMEMBERED] = status as u8;
        self.reports += 1;
        // So that it may count for ever.
        if self.reports == 3 * REMEMBERED {
            self.reports = 2 * REMEMBERED;
        }
    }

    pub(crate) fn trend(&self) -> Trend {
        let count = self.reports.min(REMEMBERED);
        if count < ENOUGH {
            return Trend::Steady;
        }
        let half = count / 2;
        let badness = |ago: std::ops::Range<usize>| -> u32 {
            let at = |ago: usize| self.latest[(self.reports - 1 - ago) % REMEMBERED];
            ago.map(|ago| u32::from(at(ago))).sum()
        };
        let (newer, older) = (badness(0..half), badness(half..2 * half));
        match newer.cmp(&older) {
            std::cmp::Ordering::Less => Trend::Improving,
            std::cmp::Ordering::Equal => Trend::Steady,
            std::cmp::Ordering::Greater => Trend::Worsening,
        }
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;
    use Status::{Degraded, Healthy, Unhealthy};

    fn trend(reports: &[Status]) -> Trend {
        let mut history = History::default();
        reports.iter().for_each(|status| history.push(*status));
        history.trend()
    }

    #[test]
    fn the_newer_half_is_held_against_the_older() {
        assert_eq!(
            trend(&[Healthy, Healthy, Degraded, Degraded]),
            Trend::Worsening
        );
        assert_eq!(
            trend(&[Unhealthy, Unhealthy, Degraded, Degraded]),
            Trend::Improving
        );
        assert_eq!(trend(&[Degraded; 9]), Trend::Steady);
        assert_eq!(
            trend(&[Healthy, Unhealthy, Healthy, Unhealthy]),
            Trend::Steady
        );
    }

    #[test]
    fn few_reports_are_no_trend_and_old_ones_are_forgotten() {
        assert_eq!(trend(&[Healthy, Healthy, Unhealthy]), Trend::Steady);
        let mut reports = vec![Unhealthy; 1_000];
        reports.extend([Healthy; 8]);
        assert_eq!(trend(&reports), Trend::Improving);
        reports.extend([Healthy; 8]);
        assert_eq!(trend(&reports), Trend::Steady);
    }
}
