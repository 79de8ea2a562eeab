//! Tower's contract, kept by every service of the workspace, by every pair of neighbours in the mesh's stack, and by the
//! whole of it.
//!
//! The examination itself is core's (`tower_mesh_core::testing::contract`), public for layers of your own. Here it runs
//! on a clock that is moved by hand, and looks into the layers from both sides: permits, probes, attempts in flight, the
//! retry account. A module for each layer; `broken` has pairs with a fault each, on which the same examination fails.
//!
//! | invariant | where |
//! |---|---|
//! | I1: what is in flight is what runs, nothing at rest | every examination; `invariants` |
//! | I2: no more probes than places, none at rest | every examination with breakers; `invariants` |
//! | I3: the retry budget stays between nothing and its cap | every examination with retries; `invariants` |
//! | I4: a snapshot is of one version | `snapshots` |
//! | I5: no wake-up is lost | every examination; `bulkhead`, `discovery` |
//! | I9: one outcome for each attempt | every examination that sees attempts; `invariants`, `addressed` |
//! | I10: a panic loses nothing and is a failure | every examination; `callbacks` for the user's code, `whole` for the counts |
//! | I11: no more attempts, no more time | every examination with retries or a deadline; `invariants` |
//! | I12: no lock across await, none while user code runs | clippy's `await_holding_lock`; `callbacks` |

// Tests are users: they spawn and wait as users do.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

mod addressed;
mod balance;
mod breaker;
mod broken;
mod bulkhead;
mod callbacks;
mod deadline;
mod discovery;
mod invariants;
mod pairs;
mod retry;
mod snapshots;
mod support;
mod whole;
