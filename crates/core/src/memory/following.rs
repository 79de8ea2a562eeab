//! One who follows a service in a registry in memory.

use std::sync::Arc;

use tokio::sync::watch;

use super::{changed_or, instances::Seen, registry::Shared};
use crate::{
    endpoint::Endpoint,
    name::ServiceName,
    resolve::{Update, Updates},
};

/// Tells one follower what has changed since it was told last.
///
/// It carries the timer of the next heartbeat that is due: core spawns nothing, so nobody else could.
pub(super) struct Following {
    registry: Arc<Shared>,
    service: ServiceName,
    changes: watch::Receiver<()>,
    told: Option<Seen>,
}

impl Following {
    pub(super) fn start(registry: Arc<Shared>, service: ServiceName) -> Updates {
        let changes = registry.lock().follow(&service);
        let following = Self {
            changes,
            registry,
            service,
            told: None,
        };
        Box::pin(futures_util::stream::unfold(
            following,
            |mut following| async {
                let update = following.next().await;
                Some((Ok(update), following))
            },
        ))
    }

    async fn next(&mut self) -> Update {
        loop {
            // Marked as seen before looking: what changes in between wakes again.
            self.changes.borrow_and_update();
            let now = self.registry.clock.now();
            let (seen, until) = self.registry.lock().look(&self.service, now);
            if let Some(update) = self.news(seen) {
                return update;
            }
            changed_or(self.changes.changed(), &self.registry.clock, until).await;
        }
    }

    fn news(&mut self, seen: Seen) -> Option<Update> {
        let update = match (&seen, &self.told) {
            (Seen::Absent, Some(Seen::Absent)) => return None,
            (Seen::These(new), Some(Seen::These(old))) if same(old, new) => return None,
            (Seen::Absent, _) => Update::Absent,
            (Seen::These(new), _) => Update::Replace(new.clone()),
        };
        self.told = Some(seen);
        Some(update)
    }
}

fn same(old: &[Endpoint], new: &[Endpoint]) -> bool {
    let same = |(old, new): (&Endpoint, &Endpoint)| old == new && old.same_description(new);
    old.len() == new.len() && old.iter().zip(new).all(same)
}

impl Drop for Following {
    fn drop(&mut self) {
        self.registry.lock().unfollow(&self.service);
    }
}
