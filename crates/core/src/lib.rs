//! The vocabulary that the crates of tower-mesh share, and that a backend of your own implements.
//!
//! | to … | implement or use |
//! |---|---|
//! | describe where a service answers | [`Endpoint`], [`ServiceName`], [`Endpoints`] |
//! | make services and layers for endpoints | [`NewService`], [`NewLayer`], [`Shared`], [`Layered`] |
//! | say what became of a call | [`Outcome`], [`Classify`], [`Finish`], [`Promises`] |
//! | keep calls from an endpoint | [`Judge`], [`Gate`], [`Attempt`] |
//! | refuse, and say where it failed | [`Refusal`], [`AtEndpoint`] |
//! | send a request again | [`Replay`] |
//! | bring a registry of your own | [`Resolve`], [`Register`]; [`MemoryRegistry`] is the one without a server |
//! | share small state, own something | [`KeyValue`], [`Lease`], [`kv`] |
//! | count | [`Recorder`] and its [handles](metrics) |
//! | take time and chance from one place | [`Clock`], [`Instant`], [`Rng`], [`frame`] |
//!
//! Nothing here decides anything: how endpoints are chosen, when a breaker opens and what is retried is in the crates
//! above. A leaf crate depends on this one and on no sibling.

mod at_endpoint;
mod by_state;
mod endpoint;
mod endpoints;
pub mod frame;
mod gate;
pub mod kv;
mod load;
#[cfg(all(test, mesh_loom))]
mod loom_models;
mod memory;
pub mod metrics;
mod name;
mod outcome;
mod per_call;
mod priority;
#[doc(hidden)]
pub mod rare;
mod ratio;
mod refusal;
mod register;
mod report;
mod resolve;
mod rng;
mod service;
#[doc(hidden)]
pub mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
pub mod tried;
mod vitals;

pub use self::{
    at_endpoint::AtEndpoint,
    by_state::ByState,
    endpoint::{Endpoint, Health, InvalidWeight, Weight},
    endpoints::{EndpointSet, Endpoints, Resolution, Subscriber},
    gate::{Availability, Gate, GateHandle, Judge, JudgeKind, Shut, Standing, Ticket},
    kv::{Key, KeyValue, KeyValueError, Lease, Prefix},
    load::{Load, Sampling},
    memory::{MemoryKeyValue, MemoryRegistry},
    metrics::{Counter, Gauge, Histogram, MemoryRecorder, NoRecorder, Recorder},
    name::{InvalidName, ServiceName},
    outcome::{
        Bomb, BoxError, Class, Classify, ClassifyErrors, Finish, Outcome, Promises, Pushback,
        Verdict,
    },
    per_call::{PerCall, PerCallFuture},
    priority::Priority,
    ratio::{InvalidRatio, Ratio},
    refusal::{Kind, Refusal, Sent},
    register::{BoxFuture, Instance, Register, RegisterError, Registered, Registration},
    report::Report,
    resolve::{Empties, Resolve, ResolveError, Update, Updates},
    rng::Rng,
    service::{CloneIdempotent, Layered, NeverAgain, NewLayer, NewService, Replay, Shared},
    time::{Clock, Instant, ManualClock, Sleep, TimerDriver},
    vitals::{Attempt, Vitals},
};
