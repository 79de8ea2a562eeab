//! The crates together. One binary, so that a change links once; a module for each story.

// Tests are users: they spawn servers and wait as users do. Time is reported, never asserted.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

mod by_hand;
mod calls;
mod checks;
mod edges;
mod endings;
mod errors;
mod flaws;
mod grpc;
mod health;
mod hostile;
mod lifecycle;
mod reload;
mod restarts;
mod support;
mod uploads;
