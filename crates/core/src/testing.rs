//! Suites that a backend or a layer of your own has to pass (feature `testing`).
//!
//! - [`conformance`]: a registry or a store keeps to what [`Resolve`](crate::Resolve), [`Register`](crate::Register) and
//!   [`KeyValue`](crate::KeyValue) promise.
//! - [`contract`]: a service keeps to tower's contract, also when it is cloned, dropped half-way, or when what it calls
//!   panics.

pub mod conformance;
pub mod contract;
mod violations;

pub use self::violations::Violations;
