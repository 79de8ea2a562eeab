//! The layer of a deadline.

use std::{marker::PhantomData, time::Duration};

use tower_layer::Layer;
use tower_mesh_core::{
    Clock, PerCall,
    frame::{Joined, Own},
};

use super::service::Deadline;

/// Ends a call that is not answered in time, and says where the time went.
///
/// The time begins when the future of the call is first polled, and covers everything up to the response: the wait for
/// the inner service's readiness, for the registry, for a permit, for every attempt and between them. It does not cover
/// the response's body, which a completion of tower-mesh-http watches.
///
/// Layers beneath see the deadline ([`frame::deadline`](tower_mesh_core::frame::deadline)): a retry that could not be
/// answered before it is not made. A deadline that is already there and nearer holds instead; if it has passed, the call
/// is refused and the inner service is not called. Whether the time is up is looked at after the inner call, so an answer
/// that comes at the very end counts.
///
/// The deadline holds for what is beneath, not for what comes after: under a retry layer it is that of each attempt.
///
/// The call's one timer is armed when the inner call first has to wait, for the nearest of all that the layers of the call
/// wish for. A timeout of zero refuses every call; one that reaches past the end of time never comes.
///
/// # Example
///
/// ```
/// use std::{convert::Infallible, future, time::Duration};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
/// use tower_mesh_limit::{DeadlineExceeded, DeadlineLayer};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let mut service = ServiceBuilder::new()
///     .layer(DeadlineLayer::new(Duration::from_millis(250)))
///     .service(service_fn(|()| future::pending::<Result<(), Infallible>>()));
///
/// let error = service.ready().await?.call(()).await.unwrap_err();
/// let error = error.downcast_ref::<DeadlineExceeded>().unwrap();
/// assert_eq!(error.limit(), Duration::from_millis(250));
/// assert_eq!(error.to_string(), "deadline exceeded: the call had 250ms, of which 250ms in the service");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DeadlineLayer<G = Own> {
    timeout: Duration,
    clock: Clock,
    framing: PhantomData<G>,
}

impl DeadlineLayer {
    /// Gives each call `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            clock: Clock::default(),
            framing: PhantomData,
        }
    }
}

impl<G> DeadlineLayer<G> {
    /// Says that a layer above opens the frame of the calls, with the same clock: they need no room for a timer.
    ///
    /// Without such a layer a call panics when it is first polled.
    pub fn joined(self) -> DeadlineLayer<Joined> {
        DeadlineLayer {
            timeout: self.timeout,
            clock: self.clock,
            framing: PhantomData,
        }
    }

    /// Takes time from `clock`; by default from tokio's.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Puts the deadline directly over `inner`, which must be always ready: it is called in `call`, without a clone and
    /// without being asked, and its future is polled unless the deadline has passed.
    ///
    /// Right for a service that reserves nothing in `poll_ready` and begins nothing before its future is polled, as all
    /// of tower-mesh's; it saves a clone for each call.
    pub fn over<S>(&self, inner: S) -> Deadline<S, G> {
        Deadline::new(inner, self.timeout, self.clock.clone())
    }
}

impl<S, G> Layer<S> for DeadlineLayer<G> {
    type Service = Deadline<PerCall<S>, G>;

    fn layer(&self, inner: S) -> Self::Service {
        self.over(PerCall::new(inner))
    }
}
