//! Runs tower services against a simulated fleet, and measures what their calls come to.
//!
//! Clients call servers that have slots, queues and faults of their own: slow, frozen, failing, new. Time is virtual and
//! chance comes from one seed, so a minute of forty thousand calls a second takes seconds, and the same seed gives the
//! same result to the bit. What is under test is real code: any [`tower_service::Service`] that is given a [`Call`] and
//! makes its way to a server through a [`Connection`].
//!
//! ```
//! use std::time::Duration;
//! use tower_mesh_sim::{Scenario, Server, policies::{LeastInFlight, Random}};
//!
//! // Ten servers, of which every third is half as fast, and clients that use 70 % of what they can do.
//! let scenario = Scenario::new(42)
//!     .servers((0..10).map(|nth| Server::new().speed(if nth % 3 == 0 { 0.5 } else { 1.0 })))
//!     .clients(4)
//!     .utilisation(0.7);
//!
//! let random = scenario.start(Random::client).measure(Duration::from_secs(1), Duration::from_secs(5));
//! let least = scenario.start(LeastInFlight::client).measure(Duration::from_secs(1), Duration::from_secs(5));
//! assert!(least.latency(0.99) < random.latency(0.99));
//! ```
//!
//! `cargo run --release -p tower-mesh-sim --example own_policy` is a policy of one's own against these.
//!
//! | to … | use |
//! |---|---|
//! | describe the fleet and its clients | [`Scenario`], [`Server`], [`Work`] |
//! | bring a policy of your own | a closure from a [`Seat`] to a service; [`Policy`] if it has to hear who joins |
//! | have something to compare it with | [`policies`] |
//! | freeze, slow down, fail or add a server | [`Simulation`] |
//! | see what came of it | [`Report`] |
//!
//! # What is simulated
//!
//! Each client is a process of its own: it shares nothing with others and sees only its own calls. Calls arrive open
//! (Poisson), whatever becomes of those before. A call's work is drawn when it arrives, so every policy is given the same
//! calls by the same clients at the same times; a second attempt of a call draws its own. A server takes so many calls at
//! once, the rest wait first come, first served; a change of its speed holds for calls it is at work on, too. A client that
//! goes away does not stop the server.
//!
//! Not simulated: bandwidth, loss, connections, the cost of the client's own code.
//!
//! # How it runs
//!
//! One thread, no runtime: futures are polled when their waker says so, in an order that the seed decides. Timers of
//! core's [`Clock`](tower_mesh_core::Clock) fire in virtual time; the clock is in the [`Seat`], and whatever reads
//! another one is told of the time by [`Policy::advance`].

mod calls;
mod event;
mod faults;
mod gauge;
pub mod policies;
mod policy;
mod report;
mod scenario;
mod server;
mod simulation;
mod wire;
mod work;

pub use self::{
    faults::{Antagonists, Pauses},
    policy::{Call, Member, Policy, Seat},
    report::{Report, ServerReport},
    scenario::{Scenario, Server},
    simulation::Simulation,
    wire::{Answer, Connection, Exchange, Failed},
    work::Work,
};
