//! Making services and layers for something: for each endpoint, mostly.

use tower_layer::Layer;

/// Makes a service for a target.
///
/// It is infallible and does not wait: a service that has to connect first does so when it is called.
pub trait NewService<T> {
    /// The service it makes.
    type Service;

    /// Makes the service for `target`.
    fn new_service(&self, target: &T) -> Self::Service;
}

/// A closure makes services.
impl<F, T, S> NewService<T> for F
where
    F: Fn(&T) -> S,
{
    type Service = S;

    fn new_service(&self, target: &T) -> S {
        self(target)
    }
}

/// Makes a layer for a target: what an endpoint-level layer offers beside the plain [`Layer`].
pub trait NewLayer<T> {
    /// The layer it makes.
    type Layer;

    /// Makes the layer for `target`.
    fn layer_for(&self, target: &T) -> Self::Layer;
}

/// One service that serves every endpoint: each gets a clone.
///
/// For clients that connect by the address in the request, and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shared<S>(S);

impl<S> Shared<S> {
    /// Serves every endpoint with a clone of `service`.
    pub const fn new(service: S) -> Self {
        Self(service)
    }
}

impl<T, S: Clone> NewService<T> for Shared<S> {
    type Service = S;

    fn new_service(&self, _: &T) -> S {
        self.0.clone()
    }
}

/// Makes services and wraps each in the layer made for the same target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layered<N, L> {
    inner: N,
    layers: L,
}

impl<N, L> Layered<N, L> {
    /// Wraps what `inner` makes in what `layers` makes.
    pub const fn new(inner: N, layers: L) -> Self {
        Self { inner, layers }
    }
}

impl<T, N, L> NewService<T> for Layered<N, L>
where
    N: NewService<T>,
    L: NewLayer<T>,
    L::Layer: Layer<N::Service>,
{
    type Service = <L::Layer as Layer<N::Service>>::Service;

    fn new_service(&self, target: &T) -> Self::Service {
        self.layers
            .layer_for(target)
            .layer(self.inner.new_service(target))
    }
}

/// Knows how to send a request again, and whether that is safe.
///
/// What it keeps is made before the first attempt, so that a request which is never retried costs as little as
/// possible; a request that cannot be kept is sent once.
pub trait Replay<Req>: Clone {
    /// What is kept of a request while an attempt runs.
    type Kept;

    /// Whether sending it twice does no more than sending it once. Retries ask it of what they would send
    /// [again](Self::again), once an attempt has failed; hedges of every request.
    fn is_idempotent(&self, request: &Req) -> bool;

    /// Keeps what another attempt needs, or nothing if it cannot be sent again. May change the request, to share its
    /// body for example.
    fn keep(&self, request: &mut Req) -> Option<Self::Kept>;

    /// Makes the request of another attempt, or nothing if meanwhile it cannot be made.
    fn again(&self, kept: &Self::Kept) -> Option<Req>;

    /// Whether another attempt may be made while one is under way: whether [`again`](Self::again) then takes nothing
    /// away from that one, and makes a request that is whole.
    ///
    /// Asked by hedges, right after the request was kept; retries come after the attempt has ended and need not know.
    /// No, unless it is said: a body that is sent while it is read can be had by one attempt at a time.
    fn can_overlap(&self, kept: &Self::Kept) -> bool {
        let _ = kept;
        false
    }
}

/// Sends clones, of requests that are all idempotent: for requests that are plain values.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CloneIdempotent;

impl<Req: Clone> Replay<Req> for CloneIdempotent {
    type Kept = Req;

    fn is_idempotent(&self, _: &Req) -> bool {
        true
    }

    fn keep(&self, request: &mut Req) -> Option<Req> {
        Some(request.clone())
    }

    fn again(&self, kept: &Req) -> Option<Req> {
        Some(kept.clone())
    }

    fn can_overlap(&self, _: &Req) -> bool {
        true
    }
}

/// Never sends again: for requests that cannot be cloned.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct NeverAgain;

impl<Req> Replay<Req> for NeverAgain {
    type Kept = std::convert::Infallible;

    fn is_idempotent(&self, _: &Req) -> bool {
        false
    }

    fn keep(&self, _: &mut Req) -> Option<Self::Kept> {
        None
    }

    fn again(&self, kept: &Self::Kept) -> Option<Req> {
        match *kept {}
    }
}
