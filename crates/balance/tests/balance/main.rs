//! The balancer over services that the test plays.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are tests")]

mod calls;
mod failures;
mod flaws;
mod fleet;
mod hashing;
mod locks;
mod panic;
mod priorities;
mod simulation;
mod spawned;
mod subsets;
mod updates;
mod world;
