//! DNS as a source of the mesh: who answers for a service, out of SRV records or of addresses.
//!
//! [`Dns`] implements core's [`Resolve`](tower_mesh_core::Resolve), over hickory's client. It asks for a service when
//! somebody follows it, and again before the answer is over; it spawns nothing and keeps no connection.
//!
//! | DNS | means |
//! |---|---|
//! | SRV | an endpoint for each address of the target: port, weight, and the rank of the priority as priority |
//! | A, AAAA | an endpoint for each address, with the port that [`Records`] say |
//! | CNAME | is followed, up to eight times |
//! | NXDOMAIN | no such service |
//! | an answer without records of the type, or a target of `.` | no endpoints |
//! | SERVFAIL, REFUSED, no answer | an error: what was known stays |
//!
//! A weight of zero beside others gets no calls. Addresses that nobody can be reached at, such as 0.0.0.0, and ports of
//! zero are left out and logged. Names that do not exist and empty answers are
//! [suspect](tower_mesh_core::Empties::Suspect): discovery holds the old endpoints against them for a while.
//!
//! # How often it asks
//!
//! The time to live is the shortest of all records that were used, at least [`min_ttl`](Dns::min_ttl) (5 s) and at most
//! [`max_ttl`](Dns::max_ttl) (60 s); for an answer that nothing is there it is that of RFC 2308. In the last fifth of
//! it, at a random moment, it asks again. An answer that changes nothing reaches nobody. After an error it waits for 250 ms,
//! and twice as long after each further one, up to 10 s.
//!
//! # Over TCP
//!
//! Servers are asked over TCP unless [`Transport::Udp`] is said. An answer over UDP may hold a part of the endpoints:
//! some servers mark it as truncated, and are then asked over TCP, but Consul does not. Nor does it take
//! much to forge one, and here answers decide where calls go.
//!
//! # Errors
//!
//! What [`Resolve`](tower_mesh_core::Resolve) yields has the server and what it said in its chain of sources.
//!
//! # Cancel safety
//!
//! Dropping what `resolve` returned ends what it does, and closes its sockets.
//!
//! # Example
//!
//! ```no_run
//! use tower_mesh_core::ServiceName;
//! use tower_mesh_dns::{Dns, Records};
//!
//! # fn example() -> Result<(), tower_mesh_core::BoxError> {
//! // Consul's agent, and one service that is somewhere else.
//! let dns = Dns::new(["127.0.0.1:8600".parse()?])?
//!     .records(Records::srv("{service}.service.consul")?)
//!     .service(ServiceName::new("billing")?, Records::addresses("billing.example.com", 443)?);
//! # Ok(())
//! # }
//! ```

mod ask;
mod dns;
mod endpoints;
mod error;
mod exchange;
mod look_up;
mod pace;
mod records;
mod resolve;

pub use self::{
    dns::{Dns, Family, Transport},
    error::DnsError,
    records::Records,
};
