//! Not calling what refuses anyway.

mod counts;
mod error;
mod future;
mod layer;
mod service;

pub use self::{
    error::Throttled,
    future::ThrottleFuture,
    layer::{ThrottleHandle, ThrottleLayer, ThrottleSnapshot},
    service::Throttle,
};
