//! At most so many calls at once.

mod error;
mod future;
mod handle;
mod layer;
mod permits;
mod pool;
mod service;
mod wait;

pub use self::{
    error::Overloaded,
    future::BulkheadFuture,
    handle::{BulkheadHandle, BulkheadSnapshot},
    layer::BulkheadLayer,
    pool::Permit,
    service::Bulkhead,
};
