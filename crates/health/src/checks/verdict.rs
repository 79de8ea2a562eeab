//! How many answers it takes to believe them.

use std::fmt;

/// What checks have found of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum HealthState {
    /// Nothing yet, or too few failures to tell: it takes calls.
    #[default]
    Unknown,
    /// It answers.
    Healthy,
    /// It does not, and takes no calls.
    Unhealthy,
}

impl HealthState {
    /// The word for it in logs and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Thresholds {
    pub(crate) unhealthy: u32,
    pub(crate) healthy: u32,
}

/// The state, and how many answers in a row speak against it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) state: HealthState,
    pub(crate) against: u32,
}

/// What a check has answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answer {
    Success,
    Failure,
    /// The endpoint has said of itself that it is unwell.
    Definite,
}

impl Verdict {
    /// Takes an answer; gives the state before if that has changed it.
    pub(crate) fn take(&mut self, answer: Answer, thresholds: Thresholds) -> Option<HealthState> {
        let before = self.state;
        let speaks_against = match before {
            HealthState::Unhealthy => answer == Answer::Success,
            _ => answer != Answer::Success,
        };
        self.against = match speaks_against {
            true => self.against.saturating_add(1),
            false => 0,
        };
        self.state = match (before, answer) {
            (HealthState::Unhealthy, Answer::Success) if self.against >= thresholds.healthy => {
                HealthState::Healthy
            }
            (HealthState::Unhealthy, _) => HealthState::Unhealthy,
            (_, Answer::Success) => HealthState::Healthy,
            (_, Answer::Definite) => HealthState::Unhealthy,
            (_, Answer::Failure) if self.against >= thresholds.unhealthy => HealthState::Unhealthy,
            (state, Answer::Failure) => state,
        };
        if self.state == before {
            return None;
        }
        self.against = 0;
        Some(before)
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::{Answer::*, HealthState::*, *};

    fn after(answers: &[Answer]) -> HealthState {
        let thresholds = Thresholds {
            unhealthy: 3,
            healthy: 2,
        };
        let mut verdict = Verdict::default();
        for answer in answers {
            verdict.take(*answer, thresholds);
        }
        verdict.state
    }

    #[test]
    fn the_first_success_counts_at_once() {
        assert_eq!(after(&[]), Unknown);
        assert_eq!(after(&[Success]), Healthy);
        assert_eq!(after(&[Failure, Success]), Healthy);
    }

    #[test]
    fn failures_count_in_a_row_and_so_do_the_successes_of_who_is_unhealthy() {
        assert_eq!(after(&[Failure, Failure]), Unknown);
        assert_eq!(after(&[Failure, Failure, Failure]), Unhealthy);
        assert_eq!(
            after(&[Success, Failure, Failure, Success, Failure, Failure]),
            Healthy
        );
        let down = [Failure, Failure, Failure];
        assert_eq!(after(&[&down[..], &[Success]].concat()), Unhealthy);
        assert_eq!(
            after(&[&down[..], &[Success, Failure, Success]].concat()),
            Unhealthy
        );
        assert_eq!(after(&[&down[..], &[Success, Success]].concat()), Healthy);
    }

    #[test]
    fn what_an_endpoint_says_of_itself_counts_at_once() {
        assert_eq!(after(&[Success, Definite]), Unhealthy);
        assert_eq!(after(&[Definite]), Unhealthy);
        assert_eq!(after(&[Definite, Success, Definite, Success]), Unhealthy);
    }
}
