//! The mesh, its layers and its peers over a plain service, to be measured: `cargo xtask bench`.
//!
//! Each case is a binary of its own, since the same source moves by fifty instructions with what else is compiled into
//! it. `cargo run --profile bench -p tower-mesh-bench --bin mesh -- --endpoints 1000 --calls 12000` makes calls and prints
//! nothing: run it beneath valgrind with two numbers of calls, and take the difference.

#[cfg(feature = "balance")]
pub mod balance;
mod case;
mod client;
mod full;
mod inner;
#[cfg(feature = "simulation")]
mod simulated;
mod stack;
mod stopwatch;
#[cfg(feature = "simulation")]
pub mod storms;
mod trace;

pub use self::{
    case::{Setup, main},
    client::{Client, Numbers, Posts, Refusals, Requests},
    full::{Stuck, full_server},
    inner::{Answer, Inner},
    stack::{
        Layers, Over, endpoints, mesh, mesh_by_authority, mesh_of_client, mesh_recorded_by, orders,
        stack,
    },
    stopwatch::Stopwatch,
};
