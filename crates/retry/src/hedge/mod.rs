//! A second attempt beside one that takes long.

mod future;
mod latencies;
mod layer;
mod plan;
mod service;
mod timing;

pub use self::{
    future::HedgeFuture,
    layer::HedgeLayer,
    service::{Hedge, HedgeRules},
    timing::{HedgeAfter, HedgeSnapshot},
};
