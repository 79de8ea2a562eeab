//! One who watches a store in memory.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::watch;

use super::{changed_or, key_value::Shared};
use crate::kv::{Event, Prefix, Watch};

/// Tells one watch what has changed since it was told last.
///
/// It carries the timer of the next lease that ends beneath its prefix, since core spawns nothing.
pub(super) struct Watching {
    store: Arc<Shared>,
    prefix: Prefix,
    from: u64,
    untold: VecDeque<Event>,
    changes: watch::Receiver<u64>,
}

impl Watching {
    pub(super) fn start(store: Arc<Shared>, prefix: Prefix, from: u64) -> Watch {
        let watching = Self {
            changes: store.changes.subscribe(),
            store,
            prefix,
            from,
            untold: VecDeque::new(),
        };
        Box::pin(futures_util::stream::unfold(
            watching,
            |mut watching| async {
                let event = watching.next().await;
                Some((Ok(event), watching))
            },
        ))
    }

    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.untold.pop_front() {
                return event;
            }
            // Marked as seen before looking: what changes in between wakes again.
            self.changes.borrow_and_update();
            let Self {
                prefix,
                from,
                untold,
                ..
            } = self;
            let until = self.store.act(|store, _| {
                untold.extend(store.since(prefix, *from));
                *from = store.revision();
                store.next_expiry(prefix)
            });
            if untold.is_empty() {
                changed_or(self.changes.changed(), &self.store.clock, until).await;
            }
        }
    }
}
