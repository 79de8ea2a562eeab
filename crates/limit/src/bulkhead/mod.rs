//! At most so many calls at once.

mod error;
mod future;
mod handle;
mod layer;
pub(crate) mod permits;
mod pool;
mod service;
mod wait;

pub(crate) use self::pool::Pool;
pub use self::{
    error::Overloaded,
    future::BulkheadFuture,
    handle::{BulkheadHandle, BulkheadSnapshot},
    layer::BulkheadLayer,
    pool::Permit,
    service::Bulkhead,
};
