//! The other side of a call: what a server needs to be part of a mesh.
//!
//! - [`ServerLayer`] is one layer for axum routers and tonic servers: deadlines, health, errors and panics as answers.
//! - [`Inherited`] is how deadline and [context](crate::context) of a request come to the calls that are made to serve it.

mod answer;
mod body;
mod counts;
mod future;
mod health;
mod inherited;
mod layer;
mod service;
#[cfg(test)]
mod tests;

pub use self::{
    body::ServerBody,
    counts::ServerCounts,
    future::ResponseFuture,
    inherited::{Inherited, Inherits, detached},
    layer::ServerLayer,
    service::Server,
};
