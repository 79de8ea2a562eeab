//! A limit that adapts to what a service can bear.
//!
//! A service that takes longer than its callers wait works for callers who have gone; each retry makes it worse, and when
//! the cause is over the queue of dead work keeps it so. What ends that is to send less. The limit of a
//! [bulkhead](crate::BulkheadLayer) does it: a call takes one permit, however many attempts it makes, and how the *attempts*
//! end moves the limit between a minimum and the one that was set, which stays the upper bound.
//!
//! - [`BulkheadLayer::adaptive`](crate::BulkheadLayer::adaptive) lets it move; [`AdaptiveLimit`], from
//!   [`adaptive_limit`](crate::BulkheadLayer::adaptive_limit), hears at the gates of endpoints how attempts end. It keeps
//!   nobody from an endpoint, and adds no service.
//! - [`AdaptiveLimitLayer`] is the same for any service without endpoints: it hears of the calls themselves.
//! - [`Aimd`] decides where it moves; [`Gradient2`], [`Gradient`] or an [`Algorithm`] of your own can in its place.
//!
//! # What counts
//!
//! | outcome of an attempt | |
//! |---|---|
//! | timeout; overload (429, 503, RESOURCE_EXHAUSTED) | speaks for a lower limit |
//! | other failures: 500, a refused connection | says nothing: it is over at once and holds no permit; breakers see to it |
//! | the caller went away, the mesh refused | says nothing |
//! | success | costs nothing while the limit is at its upper bound and all is well |
//!
//! While the limit is below its bound, or attempts lately met with overload, a call that ends takes a short lock.
//!
//! # Why AIMD is the default
//!
//! It hears of overload alone, so it costs a call that succeeds nothing, and it does nothing to a client that has never
//! met with overload: it starts at the upper bound. What a gradient takes for overload is also what a burst, an uneven
//! fleet and plain chance look like, and one that is to learn anything has to start low.

mod aimd;
mod algorithm;
pub(crate) mod control;
mod gradient;
mod gradient2;
mod judge;
mod layer;
mod limit;
mod sample;
mod samples;
mod settings;

pub use self::{
    aimd::Aimd,
    algorithm::{Algorithm, Hears, Latencies, Move, Round, Usage, Why, Window},
    gradient::Gradient,
    gradient2::Gradient2,
    layer::AdaptiveLimitLayer,
    limit::{AdaptiveLimit, AdaptiveSnapshot},
    sample::{SampleLayer, Sampled, SampledFuture},
    settings::Adaptive,
};
