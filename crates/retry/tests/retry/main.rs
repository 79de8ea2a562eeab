//! What a call through `RetryLayer` or `HedgeLayer` does, by story.

// Clippy's leave for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod allocation;
mod attempts;
mod budget;
mod cancel;
mod errors;
mod flaws;
mod hedge;
mod script;
mod waits;
