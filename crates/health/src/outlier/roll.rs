//! How many endpoints of a service are out, and how many more fail.

use tower_mesh_core::{Availability, Endpoint, Instant};

use crate::outlier::judge::OutlierJudge;

/// How many endpoints are out, whoever says so, of those that nobody has withdrawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roll {
    pub(crate) out: usize,
    pub(crate) present: usize,
    /// Who is out, or has just failed more than once in a row.
    pub(crate) sick: usize,
}

impl Roll {
    pub(crate) fn call(endpoints: &[Endpoint], now: Instant) -> Self {
        let mut roll = Self::default();
        for endpoint in endpoints {
            match endpoint.vitals().gate().availability() {
                Availability::In => {
                    roll.present += 1;
                    let judge = OutlierJudge::of(endpoint);
                    let is_sick = judge.is_some_and(|judge| judge.is_failing(endpoint, now));
                    roll.sick += usize::from(is_sick);
                }
                Availability::Out => {
                    roll.present += 1;
                    roll.out += 1;
                    roll.sick += 1;
                }
                Availability::Withdrawn => {}
            }
        }
        roll
    }

    /// Whether more than half of them are sick: then it is more likely what they have in common (a backend of theirs, our
    /// own network) than each of them, and nobody is an outlier. Who were ejected would be missed when it is over.
    pub(crate) fn is_common(&self) -> bool {
        self.present > 1 && 2 * self.sick > self.present
    }

    /// How many would be out with `endpoint`; nothing if it does not count.
    pub(crate) fn out_with(&self, endpoint: &Endpoint) -> Option<usize> {
        match endpoint.vitals().gate().availability() {
            Availability::In => Some(self.out + 1),
            Availability::Out => Some(self.out),
            Availability::Withdrawn => None,
        }
    }
}
