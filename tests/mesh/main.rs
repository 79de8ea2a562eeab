//! The crates together. One binary, so that a change links once; a module for each story.

// Tests are users: they spawn servers and wait as users do. Time is reported, never asserted.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

#[path = "../../crates/consul/tests/consul/agent.rs"]
#[expect(dead_code, reason = "what only its own tests use")]
mod agent;
mod authority;
mod bounds;
mod by_hand;
mod calls;
mod chain;
mod checks;
mod classified;
mod consul;
mod consul_checks;
mod consul_cluster;
mod consul_deploys;
mod consul_outages;
#[path = "../../crates/consul/tests/consul/servers.rs"]
mod consul_servers;
mod edges;
mod endings;
mod ends;
mod errors;
mod flaws;
mod grpc;
mod hangs;
mod health;
mod hostile;
mod lifecycle;
mod lookups;
mod pairs;
#[path = "../../crates/consul/tests/consul/proxy.rs"]
#[expect(dead_code, reason = "what only its own tests use")]
mod proxy;
mod registering;
mod reload;
mod remembering;
mod restarts;
mod rolling;
mod sockets;
mod support;
mod tls;
#[path = "../../crates/http/tests/tls/support.rs"]
#[expect(dead_code, reason = "what only its own tests use")]
mod tls_servers;
mod unseen;
mod uploads;
mod wire;
