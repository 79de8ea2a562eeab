//! Suites that a backend or a layer of your own has to pass (feature `testing`).
//!
//! - [`conformance`]: a registry or a store keeps to what [`Resolve`](crate::Resolve), [`Register`](crate::Register) and
//!   [`KeyValue`](crate::KeyValue) promise.

pub mod conformance;
mod violations;

pub use self::violations::Violations;
