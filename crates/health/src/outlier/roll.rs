//! How many endpoints of a service are out.

use tower_mesh_core::{Availability, Endpoint};

/// How many endpoints are out, whoever says so, of those that nobody has withdrawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roll {
    pub(crate) out: usize,
    pub(crate) present: usize,
}

impl Roll {
    pub(crate) fn call(endpoints: &[Endpoint]) -> Self {
        let mut roll = Self::default();
        for endpoint in endpoints {
            match endpoint.vitals().gate().availability() {
                Availability::In => roll.present += 1,
                Availability::Out => {
                    roll.present += 1;
                    roll.out += 1;
                }
                Availability::Withdrawn => {}
            }
        }
        roll
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
