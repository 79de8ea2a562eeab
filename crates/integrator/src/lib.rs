//! A service mesh inside the process: tower layers that find a service's endpoints, spread calls over them, leave alone
//! what fails, try again what may be tried again, and keep every call within its time.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tower_mesh::Mesh;
//!
//! let mesh = Mesh::from_file("mesh.toml").start().await?;
//! let orders = mesh.service("orders")?;
//! let response = orders.get("/orders/42").await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Mesh`] is the one entry point: it checks its configuration, starts its parts in the right order, and ends them in
//! the right order. [`MeshService`] is a tower service, so anything that takes one takes it. Every layer it is composed
//! of is public and works alone, in the module of its name.

pub use tower_mesh_balance as balance;
pub use tower_mesh_breaker as breaker;
#[cfg(feature = "consul")]
pub use tower_mesh_consul as consul;
pub use tower_mesh_core as core;
pub use tower_mesh_discovery as discovery;
#[cfg(feature = "dns")]
pub use tower_mesh_dns as dns;
pub use tower_mesh_health as health;
pub use tower_mesh_http as http;
pub use tower_mesh_limit as limit;
pub use tower_mesh_retry as retry;

mod announce;
mod builder;
mod call;
mod checks;
mod client;
pub mod config;
mod error;
mod errors;
mod explain;
#[cfg(feature = "grpc")]
mod grpc;
mod lifecycle;
mod mesh;
mod metrics;
mod observe;
mod on_heap;
mod policy;
mod profile;
mod reload;
mod remember;
mod secure;
mod server;
mod service;
mod settings;
mod shutdown;
mod snapshot;
mod sources;
mod stack;
mod stacks;
mod started;
pub mod status;
mod tasks;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;

pub use tower_mesh_core::{Endpoint, Instance, MemoryRegistry, ServiceName};
pub use tower_mesh_http::Body;
#[cfg(feature = "tls")]
pub use tower_mesh_http::Tls;

pub use self::{
    builder::MeshBuilder,
    client::{ClientBody, ClientFuture, MeshClient},
    config::{Config, ConfigError},
    error::{Error, StartError},
    explain::Explained,
    lifecycle::{Component, Lifecycle, Start},
    mesh::Mesh,
    policy::{
        BreakerPolicy, Check, EjectionPolicy, HashPolicy, HealthPolicy, HedgePolicy, LimitPolicy,
        PanicPolicy, Policy, RetryPolicy, SubsetPolicy,
    },
    profile::Profile,
    server::{MeshServerLayer, Serve, ServeError},
    service::{MeshLayer, MeshService},
    settings::{Change, Changes},
    shutdown::ShutdownError,
    snapshot::{InvalidSnapshot, Snapshot},
    stack::{ResponseBody, ResponseFuture},
    status::Status,
};

#[cfg(feature = "grpc")]
pub use self::grpc::{GrpcError, GrpcFuture, GrpcService};

/// The mesh beside hyper, axum, tonic and reqwest: what changes in your code.
#[cfg(all(feature = "grpc", feature = "reqwest"))]
#[doc = include_str!("../ecosystems.md")]
pub mod ecosystems {}

/// The README, whose examples have to compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
