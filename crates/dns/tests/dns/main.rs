//! Against a server of our own, which answers as no server should, and against the DNS of real agents of Consul.
//!
//! What needs an agent is `#[ignore]`d: `cargo xtask test` runs it where it finds one.

#![cfg(not(mesh_loom))]
#![allow(clippy::unwrap_used, reason = "the helpers of a test are tests")]
#![allow(
    clippy::disallowed_methods,
    reason = "a test spawns what it needs, and its runtime ends with it"
)]

#[path = "../../../consul/tests/consul/agent.rs"]
#[expect(dead_code, reason = "what only its own tests use")]
mod agent;
mod answers;
mod conforms;
mod consul;
mod ends;
#[path = "../../../consul/tests/consul/proxy.rs"]
#[expect(dead_code, reason = "what only its own tests use")]
mod proxy;
#[path = "../../../consul/tests/consul/scene.rs"]
#[expect(dead_code, reason = "what only its own tests use")]
mod scene;
mod seen;
mod server;
mod servers;
mod transports;
mod ttls;
