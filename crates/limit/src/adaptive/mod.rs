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
//!
//! What `cargo run --release -p tower-mesh-limit --example storm outage slow calm` gives for 20 clients and 10 servers of 8
//! slots, attempts of 500 ms, 2 s a call, three attempts within a budget of 10 %, no breakers:
//!
//! | | fixed 1,024 | [`Aimd`] | [`Gradient2`] from 20 | [`Gradient`] from 1,024 |
//! |---|---:|---:|---:|---:|
//! | servers stand still for 10 s, at 70 % load: seconds until 95 % are answered again | 34 | 1 | 1 | 2 |
//! | four times as slow for 10 s, at 70 % load; at 85 % | 23; never | 0; 0 | 0; 0 | 1; 1 |
//! | four times as slow for 60 s, at 85 % load: answers, of what the servers can do | 1 % | 95 % | 100 % | 65 % |
//! | nothing is wrong, one client, 95 % load: calls refused | 0 | 0 | 66 % | 9 % |
//!
//! The last row is why none of the gradients is the default, and the third what AIMD pays: it finds the limit of a service
//! that stays slow by going too far now and then.

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
mod turnaround;

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
