//! The server layer under the servers that it is for, over real sockets.

// Tests are users: they spawn servers and wait as users do.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

mod axum;
mod bounds;
mod contract;
mod tonic;
