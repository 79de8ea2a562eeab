//! A process as a server of the mesh: serving, and ending without a failed call.

// Tests are users: they spawn and wait as users do. Time is reported, never asserted.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

mod access;
mod deadlines;
mod ending;
mod layer;
mod load;
#[cfg(all(unix, feature = "signals"))]
mod signals;
mod support;
