//! One service whose endpoints nobody knows: refused while it is unhealthy.

mod builder;
mod driver;
mod error;
mod future;
mod layer;
mod service;

pub use self::{
    builder::HealthLayerBuilder, driver::HealthLayerDriver, error::ServiceUnhealthy,
    future::ResponseFuture, layer::HealthLayer, service::Health,
};
