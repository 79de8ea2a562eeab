//! The mesh with real hyper and axum over a simulated network, in virtual time: partitions, crashes and what comes after.

// Tests are users: they spawn servers and wait as users do.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

mod crashes;
mod partitions;
mod world;
