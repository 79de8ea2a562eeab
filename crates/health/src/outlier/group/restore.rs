//! Ejections from before a restart, which wait for their endpoints to be found.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use tower_mesh_core::{Instant, sync::Ordering};

use super::{Group, Ward, most_in_a_row, news::News};
use crate::outlier::{OutlierJudge, roll::Roll, snapshot::SavedEjection};

/// By identity: until when, and how often in a row.
#[derive(Debug, Default)]
pub(super) struct Waiting(HashMap<(String, SocketAddr), (Instant, u32)>);

/// How many may wait: what was saved came from a file.
const MOST: usize = 10_000;

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Group {
    /// Ejects who was ejected when `saved` was taken, `elapsed` ago, for the rest of the time.
    pub(crate) fn restore(&self, saved: Vec<SavedEjection>, elapsed: Duration) {
        let now = self.clock.now();
        self.act(|ward, news| {
            let longest = ward.policy.terms.longest();
            for saved in saved {
                let rest = saved.remaining.min(longest).saturating_sub(elapsed);
                if !rest.is_zero() && ward.waiting.0.len() < MOST {
                    let identity = (saved.id, saved.address);
                    ward.waiting.0.insert(identity, (now + rest, saved.times));
                }
            }
            self.is_concerned.store(true, Ordering::Relaxed);
            news.wake(ward);
        });
    }

    /// Ejects those that have been found meanwhile, within the bounds, and forgets those whose time is over.
    pub(super) fn restore_waiting(
        self: &Arc<Self>,
        ward: &mut Ward,
        now: Instant,
        news: &mut News,
    ) {
        if ward.waiting.is_empty() {
            return;
        }
        ward.waiting.0.retain(|_, (until, _)| *until > now);
        let set = self.endpoints.current();
        let mut roll = Roll::call(set.endpoints(), now);
        for endpoint in set.endpoints() {
            let identity = (endpoint.id().to_owned(), endpoint.address());
            let Some((until, times)) = ward.waiting.0.remove(&identity) else {
                continue;
            };
            OutlierJudge::attach(endpoint, self, most_in_a_row(&ward.policy), now);
            if let Some(judge) = self.judge_within(ward, &mut roll, endpoint) {
                let sentence = judge.restore(until, times, now);
                self.ejected(ward);
                news.ejected(endpoint, sentence, now);
            }
        }
    }
}
