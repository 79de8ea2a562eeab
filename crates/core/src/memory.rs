//! The registry and the store that need no server: the embedded defaults, and the models that other backends are
//! compared with.

mod following;
mod instances;
mod key_value;
mod registry;
mod store;
mod watching;

pub use self::{key_value::MemoryKeyValue, registry::MemoryRegistry};

use std::future::Future;

use crate::time::{Clock, Instant};

/// Waits for `changed`, or until `at` if there is a time to wait for: a timer without need would want a runtime.
async fn changed_or(changed: impl Future, clock: &Clock, at: Option<Instant>) {
    let changed = std::pin::pin!(changed);
    match at {
        Some(at) => {
            let timer = std::pin::pin!(clock.sleep_until(at));
            futures_util::future::select(changed, timer).await;
        }
        None => {
            changed.await;
        }
    }
}
