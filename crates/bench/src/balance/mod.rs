//! The quality of balancing: the shipped `MeshService` beside others on simulated fleets (`cargo xtask bench --balance`).
//!
//! Fleets and figures are those of the study that the default was chosen by: 50 clients of 100 servers with four slots each,
//! log-normal work of 10 ms, open arrivals. What runs is the real client with its clock, chance and endpoints' services
//! injected: discovery, deadline, bulkhead, retry, breakers and all.

mod cell;
mod contender;
mod fleet;
pub mod holds;
pub mod models;
pub mod output;
pub mod plot;
mod tower_peak;

pub use self::{
    cell::{Cell, Measured, run_all},
    contender::Contender,
    fleet::Fleet,
};
