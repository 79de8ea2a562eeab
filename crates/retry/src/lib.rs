//! Tries again what may be tried again, within a budget and before the deadline.
//!
//! # What happens to a request
//!
//! 1. It earns its share of the retry [`Budget`], is kept for a second attempt ([`Replay`]: by default cloned) and sent.
//! 2. [`Classify`] says what became of it. A success goes to the caller, and so does a response whose end is still open:
//!    after its head nothing is retried.
//! 3. After a failure, an overload or a timeout it is sent again if that is safe (it is idempotent, or surely was not
//!    sent), if attempts are left, if the endpoint did not ask to be spared, if the wait would end before the deadline,
//!    and if the budget has a retry left. A refusal by the mesh itself is never retried.
//! 4. It waits: as long as the endpoint asked for, or else a [`Backoff`] with jitter. Then the service is readied and
//!    called again; a balancer beneath picks another endpoint.
//! 5. When there is no further attempt the caller gets what the last one brought: its response, unchanged, or its
//!    error. Was there more than one attempt, or one was refused, the error is [`Exhausted`], which tells of each
//!    attempt and why it was the last.
//!
//! A call that succeeds at once allocates nothing (but for what [`Replay`] keeps), takes no lock and arms no timer.
//!
//! # When to use it
//!
//! At one place on the way of a request. Retries over retries multiply; so what one [`RetryLayer`] gave up another does
//! not try again. Give every caller of a service the same [`Budget`]: it is what keeps retries from turning a short
//! outage into a long one.
//!
//! # Hedging
//!
//! A retry waits for a failure; against an endpoint that is merely slow, [`HedgeLayer`] makes a second attempt elsewhere
//! while the first goes on. It stands alone, or [beneath](HedgeLayer::beneath_retry) a [`RetryLayer`] with the same
//! budget.
//!
//! # Differences from `tower::retry`
//!
//! There a policy decides, and everybody writes it: deposits to the budget, deadline, pushback and idempotency are left
//! to it, and the request is cloned before it is known whether it may be sent again. Here these are the layer. When the
//! service fails to become ready for a retry, tower loses the error that led to it; here it is told.
//!
//! `tower::hedge` needs two readinesses for each call, learns by a lock in steps of a millisecond, has no budget, and may
//! send the second attempt to where the first one hangs.
//!
//! # Example
//!
//! ```
//! use std::{convert::Infallible, error::Error, sync::atomic::{AtomicU32, Ordering}, time::Duration};
//!
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_mesh_core::Outcome;
//! use tower_mesh_retry::RetryLayer;
//!
//! // What a response or an error means; errors alone are told without it.
//! fn judge(status: Result<&u16, &(dyn Error + Send + Sync + 'static)>) -> Outcome {
//!     match status {
//!         Ok(503) => Outcome::overload(),
//!         Ok(_) => Outcome::success(),
//!         Err(_) => Outcome::failure(),
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower::BoxError> {
//! static CALLS: AtomicU32 = AtomicU32::new(0);
//! let busy_at_first = service_fn(|_request: &'static str| async {
//!     let first = CALLS.fetch_add(1, Ordering::Relaxed) == 0;
//!     Ok::<u16, Infallible>(if first { 503 } else { 200 })
//! });
//!
//! let retry = RetryLayer::default()
//!     .per_try_timeout(Duration::from_secs(1))
//!     .classify(judge);
//! let mut service = ServiceBuilder::new().layer(retry).service(busy_at_first);
//!
//! assert_eq!(service.ready().await?.call("hello").await?, 200);
//! assert_eq!(CALLS.load(Ordering::Relaxed), 2);
//! # Ok(())
//! # }
//! ```
//!
//! [`Replay`]: tower_mesh_core::Replay
//! [`Classify`]: tower_mesh_core::Classify

mod backoff;
mod budget;
mod error;
mod future;
mod hedge;
mod layer;
mod limits;
mod service;

pub use self::{
    backoff::{Backoff, Jitter},
    budget::{Budget, BudgetSnapshot, Withdrawal},
    error::{AttemptTimeout, Exhausted, FailedAttempt, Why},
    future::ResponseFuture,
    hedge::{Hedge, HedgeAfter, HedgeFuture, HedgeLayer, HedgeRules, HedgeSnapshot},
    layer::RetryLayer,
    service::{Retry, Rules},
};
