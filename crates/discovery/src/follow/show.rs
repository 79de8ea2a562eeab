//! What following a service shows: endpoints to callers, the report to the status, transitions to the log.

use tower_mesh_core::{Instant, Resolution};

use super::Follower;
use crate::{faults::Faults, hold::Turn};

impl Follower {
    /// Makes what was taken in what callers see.
    pub(super) fn show(&mut self, now: Instant) {
        let suspect = self.hold.is_on();
        let differs = self.table.settle(suspect);
        let resolution = match self.absent && !suspect {
            true => Resolution::Absent,
            false => Resolution::Found,
        };
        {
            let mut report = self.entry.report();
            report.suspect = suspect;
            report.filtered = self.table.filtered();
        }
        if differs || resolution != self.entry.endpoints.current().resolution() {
            self.publish(resolution);
            self.idle.set_limit(self.idle_limit(), now);
        }
    }

    fn publish(&self, resolution: Resolution) {
        let endpoints = &self.entry.endpoints;
        let (before, had) = {
            let set = endpoints.current();
            (set.resolution(), set.endpoints().len())
        };
        let live = self.table.live();
        let has = live.len();
        endpoints.publish(resolution, live);
        let service = endpoints.service();
        let source = self.shared.source;
        match (before, resolution) {
            (_, Resolution::Absent) => tracing::info!(%service, source, "no such service"),
            (Resolution::Found, _) if has == 0 && had > 0 => {
                tracing::warn!(%service, source, had, "no endpoint is left");
            }
            (Resolution::Found, _) => {
                tracing::debug!(%service, source, endpoints = has, "endpoints changed");
            }
            _ => tracing::info!(%service, source, endpoints = has, "found"),
        }
    }

    pub(super) fn tell(&self, turn: Turn) {
        let service = self.entry.service();
        match turn {
            Turn::Begun => {
                tracing::warn!(%service, "an answer loses most endpoints, the old ones are kept for now");
            }
            Turn::Unfounded => tracing::info!(%service, "the lost endpoints are back"),
            Turn::Believed => {
                tracing::warn!(%service, "the lost endpoints stay away, they are dropped")
            }
        }
    }

    /// The source has answered.
    pub(super) fn answered(&mut self, now: Instant) {
        if std::mem::take(&mut self.failing) {
            tracing::info!(service = %self.entry.service(), source = self.shared.source, "discovery answers again");
        }
        let mut report = self.entry.report();
        report.answered = Some(now);
        report.error = None;
        report.failing = None;
        report.dropped = self.faults.duplicates + self.faults.unusable;
    }

    /// The source could not answer.
    pub(super) fn failed(&mut self, error: Box<str>, now: Instant) {
        if !std::mem::replace(&mut self.failing, true) {
            let service = self.entry.service();
            tracing::warn!(%service, source = self.shared.source, %error, "discovery fails, what was known stays");
        }
        let mut report = self.entry.report();
        report.error = Some(error.into());
        report.failing.get_or_insert(now);
    }

    pub(super) fn note_faults(&mut self, faults: Faults) {
        if faults != self.faults
            && let Some((id, fault)) = &faults.example
        {
            tracing::warn!(
                service = %self.entry.service(),
                duplicates = faults.duplicates,
                unusable = faults.unusable,
                "endpoints were dropped, {id:?} for example: {fault}"
            );
        }
        self.faults = faults;
    }
}
