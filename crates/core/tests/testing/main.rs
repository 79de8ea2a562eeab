//! The public suites: what is right passes them, and each kind of fault breaks the rule that is meant for it.

// All of this is tests, though clippy takes only what is inside of `#[test]` for that.
#![allow(clippy::unwrap_used)]

mod broken_store;
mod contract;
mod examined;
mod key_value;
mod register;
mod resolve;
