//! How the parts of a process are, together.

mod board;
mod driver;
mod handle;
mod snapshot;
mod status;
mod trend;

pub use self::{
    driver::ComponentsDriver,
    handle::{Component, Components, ComponentsBuilder, RegisterError},
    snapshot::{ComponentSnapshot, ComponentsSnapshot},
    status::{Criticality, Report, Status},
    trend::Trend,
};
