//! Endpoints that fail where their peers do not: who they are, and how long they are left alone.

mod bounds;
mod driver;
mod group;
mod judge;
mod layer;
#[cfg(all(test, mesh_loom))]
mod models;
mod policy;
mod roll;
mod rules;
mod run;
mod snapshot;
mod term;

pub(crate) use self::judge::OutlierJudge;
pub use self::{
    driver::OutlierDriver,
    layer::{OutlierBuilder, OutlierLayer, Outliers},
    policy::{OutlierPolicy, Readmission},
    rules::EjectionReason,
    snapshot::{Ejection, OutlierSnapshot, SavedEjection},
};
