//! The other side of a call: what a server needs to be part of a mesh.
//!
//! - [`ServerLayer`] is one layer for axum routers and tonic servers: deadlines, health, errors and panics as answers.
//! - [`AuthorizeLayer`], beneath it, lets those through who may.
//! - [`Inherited`] is how deadline and [context](crate::context) of a request come to the calls that are made to serve it.

mod answer;
mod authorize;
mod bearer;
mod body;
mod counts;
#[cfg(feature = "grpc")]
mod details;
mod future;
mod health;
mod inherited;
mod layer;
mod quiet;
mod service;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use self::bearer::is_token;
pub use self::{
    authorize::{Access, Authorize, AuthorizeLayer, Authorized, AuthorizedFuture, Caller, Denied},
    bearer::{Bearer, BearerTokens},
    body::ServerBody,
    counts::ServerCounts,
    future::ResponseFuture,
    inherited::{Inherited, Inherits, detached},
    layer::ServerLayer,
    service::Server,
};
