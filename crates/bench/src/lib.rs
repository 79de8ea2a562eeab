//! The mesh's client stack over a plain service, to be measured.
//!
//! Each case is a binary of its own, since the same source moves by fifty instructions with what else is compiled into
//! it: `cargo run --profile bench -p tower-mesh-bench --bin mesh -- --endpoints 1000 --calls 12000 [--pending]` makes
//! calls and prints nothing. Run it beneath `valgrind --tool=callgrind` with two numbers of calls, and take the
//! difference, to count instructions.

mod case;
mod client;
mod inner;
mod stack;

pub use self::{
    case::{Setup, main},
    client::{Client, Numbers, Requests},
    inner::{Answer, Inner},
    stack::{mesh, stack},
};
