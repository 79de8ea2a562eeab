//! A balancer that looks at requests for their key.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    task::{Context, Poll},
};

use tower::load::{CompleteOnResponse, TrackCompletion};
use tower_layer::Layer;
use tower_mesh_core::{
    Attempt, BoxError, Classify, ClassifyErrors, Endpoint, NewService, Promises,
};
use tower_service::Service;

use super::Hashing;
use crate::{future::ResponseFuture, layer::BalanceLayer, service::Balance};

/// Sends calls with the same key to the same endpoint, while it is well and has room; made by
/// [`BalanceLayer::hash_by`].
///
/// For endpoints that remember something of what they were asked, a cache above all. All clients with the same
/// [seed](Self::seed) send a key to the same endpoint. An endpoint that comes or goes moves only the keys that it gets or
/// had, about one in as many as there are endpoints. Of up to 64 endpoints the one is chosen whose score for the key is
/// the greatest (rendezvous), beyond that the next one on a ring; where their number passes 64, most keys move once.
///
/// No endpoint takes more than [1.25](Self::capacity) times an equal share of this client's calls in flight, by its weight
/// and rounded up: what is more goes to the next. So keys that are asked for much, or made to hit one endpoint, do not
/// swamp it. Of more than 16 endpoints the share is one of some microseconds ago.
///
/// A retry goes to the next endpoint for its key. A call without a key, and one that finds nobody open and with room, go
/// where the [`Strategy`](crate::Strategy) says. Slow start does not count here: a key has one home.
#[derive(Clone, Debug)]
pub struct HashBy<F, K = ClassifyErrors, C = CompleteOnResponse> {
    balance: BalanceLayer<K, C>,
    hashing: Hashing,
    key: F,
}

impl<F, K, C> HashBy<F, K, C> {
    pub(crate) fn new(balance: BalanceLayer<K, C>, key: F) -> Self {
        Self {
            balance,
            hashing: Hashing::default(),
            key,
        }
    }

    /// Sets what keys are hashed with: 0 unless said. Who does not know it cannot make keys that lead to one endpoint; it
    /// has to be the same in all clients that are to agree.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.hashing = self.hashing.seed(seed);
        self
    }

    /// Sets how many calls an endpoint takes at once, as a multiple of an equal share: 1.25 unless said, from "Consistent
    /// Hashing with Bounded Loads". 1 spreads calls evenly whatever their keys; less, or what is no number, is taken for 1.
    #[must_use]
    pub fn capacity(mut self, capacity: f64) -> Self {
        self.hashing = self.hashing.capacity(capacity);
        self
    }
}

impl<F: Clone, K, C> HashBy<F, K, C> {
    /// Looks for keys above a balancer that is there. It heeds them if its layer was told of
    /// [`hashing`](BalanceLayer::hashing), and else calls as if there were none.
    pub fn over<S>(&self, balance: Balance<S, K, C>) -> Hashed<Balance<S, K, C>, F> {
        Hashed {
            balance,
            seed: self.hashing.seed,
            key: self.key.clone(),
        }
    }
}

impl<N, F, K, C> Layer<N> for HashBy<F, K, C>
where
    N: NewService<Endpoint> + Send + Sync + 'static,
    N::Service: Send + Sync + 'static,
    F: Clone,
    K: Clone + Send + Sync + 'static,
    C: Clone + Send + Sync + 'static,
{
    type Service = Hashed<Balance<N::Service, K, C>, F>;

    fn layer(&self, new_service: N) -> Self::Service {
        let balance = self.balance.clone().hashing(self.hashing);
        self.over(balance.layer(new_service))
    }
}

/// What of a request is its key: a closure, or a type of your own where its name is needed.
pub trait KeyOf<Req> {
    /// What is hashed.
    type Key: Hash;

    /// The key of a request, if it has one.
    fn key_of(&self, request: &Req) -> Option<Self::Key>;
}

impl<F, H, Req> KeyOf<Req> for F
where
    F: Fn(&Req) -> Option<H>,
    H: Hash,
{
    type Key = H;

    fn key_of(&self, request: &Req) -> Option<H> {
        self(request)
    }
}

/// A balancer that looks at requests for their key; made by [`HashBy`].
///
/// # Errors
///
/// As [`Balance`].
#[derive(Clone, Debug)]
pub struct Hashed<B, F> {
    balance: B,
    seed: u64,
    key: F,
}

impl<S, K, C, F, Req> Service<Req> for Hashed<Balance<S, K, C>, F>
where
    F: KeyOf<Req>,
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    K: Classify<S::Response>,
    C: TrackCompletion<Attempt, S::Response> + Promises<K::Answer>,
{
    type Response = C::Output;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req, (K, C)>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.balance.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let key = self.key.key_of(&request).map(|key| hashed(&key, self.seed));
        self.balance.call(request).with_key(key)
    }
}

/// SipHash, and the seed before the key: so that nobody who does not know it finds keys that collide.
fn hashed(key: &impl Hash, seed: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(seed);
    key.hash(&mut hasher);
    hasher.finish()
}
