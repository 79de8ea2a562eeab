//! Consul as the registry of the mesh, and as its store: who answers for a service, announcing that one does, and small
//! state that is shared.
//!
//! [`Consul`] implements core's [`Resolve`](tower_mesh_core::Resolve), [`Register`](tower_mesh_core::Register) and
//! [`KeyValue`](tower_mesh_core::KeyValue), over the HTTP API of an agent, and of servers of version 1.8 or later.
//!
//! # Discovery
//!
//! Each service that is followed is one request which an agent holds until something changes. It may be answered by any
//! server (`stale`), so that an election fails nobody: it may be a moment behind the leader. An answer older than
//! [`max_stale`](Consul::max_stale) is asked for again of the leader. An answer that changes nothing reaches nobody.
//!
//! An agent takes 200 connections of one address unless it is told otherwise (`limits.http_max_conns_per_client`). So at
//! most [`max_held`](Consul::max_held) requests are held at a time, 128 unless said otherwise. Who follows more services
//! than that asks them in turns, all together about 20 times a second ([`max_rate`](Consul::max_rate)), each at best every
//! 10 s, and hears of a change that much later: raise both of the first, or the rate.
//!
//! | 1,000 services of 10 endpoints each, by one process | |
//! |---|---|
//! | all have answered | after 1.2 s |
//! | requests to the agent while nothing changes | 1,258 in the first minute, 128 of them at once |
//! | memory of the process | 32 MiB |
//! | a change is heard | after 20 s (median of 20), 39 s at most |
//!
//! `TOWER_MESH_LONG=1 cargo test -p tower-mesh-consul --test consul -- --ignored --nocapture more_services`, a debug build
//! beside other work on two cores of an AMD EPYC; agent of Consul 1.8.7, 128 requests held.
//!
//! | Consul | endpoint |
//! |---|---|
//! | service address and port, or the node's address | address; what is no IP address is left out, and logged |
//! | the worst of the checks of service and node | health |
//! | `Weights.Passing`, or `Weights.Warning` while a check warns | weight |
//! | tags, metadata | the same |
//! | metadata `zone` of the service, or of the node | zone |
//!
//! Consul does not tell a service without endpoints from one that does not exist, nor from one that the token may not
//! read. So its empty answers are [suspect](tower_mesh_core::Empties::Suspect): discovery holds the old endpoints
//! against them for a while.
//!
//! # Registration
//!
//! An instance with a ttl gets a check that heartbeats pass; others that the agent makes by itself are added by
//! [`Consul::check`]. A heartbeat finds out when the agent has lost its state, and registers again.
//!
//! What the catalogue has no field for (zone, priority, a weight of zero, the endpoint's own id) lies in metadata that
//! begins with `mesh-`, and is not shown as such.
//!
//! # Health
//!
//! [`Consul::health`] tells of several services at once what each check says, those of instances and of nodes apart. A
//! mesh that is given a `Consul` needs no more than a clone of it kept for that.
//!
//! # Keys and leases
//!
//! A revision is Consul's `ModifyIndex`, also as a [fencing token](tower_mesh_core::kv::FencingToken): `LockIndex` is set
//! back by a plain write. Writes are transactions, so that they tell their revision, and so that a key which is written
//! anew leaves the lease that it had. Only a value above about 390,000 bytes, too large for a transaction, is deleted and
//! then written, and cannot be bound to a lease.
//!
//! A lease is a session without checks, of 10 s to 24 h, which deletes its keys. Consul may let it live on for as long
//! again as its time. A watch tells the difference of two answers; one from an older revision begins with a reset.
//!
//! # Errors
//!
//! What core's traits return has a [`ConsulError`] in its chain of sources; one about access control names the permission
//! that the token lacks.
//!
//! # TLS
//!
//! Agents at `https://` addresses have to prove who they are, and this process too if they ask; it takes the feature `tls`,
//! and there is no way to believe one without proof. See `Tls`, and [`Consul::from_env`] for the variables of Consul's own
//! tools. A token belongs on such a connection alone, unless the agent is on the same machine.
//!
//! # Example
//!
//! ```no_run
//! use std::time::Duration;
//! use tower_mesh_consul::{Check, Consul};
//! use tower_mesh_core::{Endpoint, Instance, Register, ServiceName};
//!
//! # async fn example() -> Result<(), tower_mesh_core::BoxError> {
//! let consul = Consul::from_env()?.check(Check::http("/health"));
//! let endpoint = Endpoint::new(([10, 0, 0, 7], 8080).into()).with_zone("eu-1a");
//! let instance = Instance::new(ServiceName::new("orders")?, endpoint);
//! let registration = consul.register(instance.with_ttl(Duration::from_secs(10))).await?;
//! // …
//! registration.deregister().await?;
//! # Ok(())
//! # }
//! ```

mod address;
mod catalog;
mod check;
mod connection;
mod consul;
mod error;
mod health;
mod kv;
mod places;
mod register;
mod request;
mod resolve;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;
#[cfg(feature = "tls")]
mod tls;
mod token;
mod turns;

#[cfg(feature = "tls")]
pub use self::tls::Tls;
pub use self::{
    check::Check,
    consul::Consul,
    error::{ConsulError, Distrust, ErrorKind},
    health::{CheckHealth, InstanceHealth, ServiceHealth},
};
