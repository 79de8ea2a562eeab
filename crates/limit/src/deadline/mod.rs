//! So long and no longer.

mod error;
mod future;
mod layer;
mod service;

pub use self::{
    error::DeadlineExceeded, future::DeadlineFuture, layer::DeadlineLayer, service::Deadline,
};
