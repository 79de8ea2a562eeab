//! What discovery does for its callers, against a source that says what the test tells it to.

#![cfg(not(mesh_loom))]
#![allow(clippy::unwrap_used, reason = "the helpers of a test are tests")]
#![allow(
    clippy::disallowed_methods,
    reason = "a test spawns what it drives, and its runtime ends with it"
)]

mod callers;
mod changes;
mod contract;
mod ends;
#[cfg(feature = "file")]
mod files;
mod flaws;
mod logs;
mod preferred;
mod registry;
mod script;
mod sources;
mod updates;
