//! Against real agents, and against a server of our own that answers as no agent should.
//!
//! What needs an agent is `#[ignore]`d: `cargo xtask test` runs it where it finds one.

#![cfg(not(mesh_loom))]
#![allow(clippy::unwrap_used, reason = "the helpers of a test are tests")]
#![allow(
    clippy::disallowed_methods,
    reason = "a test spawns what it needs, and its runtime ends with it"
)]

#[allow(dead_code, reason = "the tests of the mesh use more of it")]
mod agent;
mod cluster;
mod fleet;
mod healths;
mod hostile;
mod keys;
mod outages;
#[allow(dead_code, reason = "the tests of the mesh use more of it")]
mod proxy;
mod registering;
mod resolving;
mod scene;
mod servers;
#[cfg(feature = "tls")]
mod tls;
