use std::{fmt, sync::Arc};

use tower::load::CompleteOnResponse;
use tower_layer::{Identity, Layer};
use tower_mesh_core::{ClassifyErrors, Clock, Endpoint, NewLayer, Rng};

use crate::{
    breaker::Breaker, error::CountsOtherwise, policy::Policy, service::CircuitBreaker,
    settings::Settings, transition::Transitions,
};

/// Gives a service, or each endpoint of a balancer, a breaker.
///
/// - As a [`Layer`] it wraps a service in a [`CircuitBreaker`], which refuses calls while the breaker is open.
/// - As a [`NewLayer`] for endpoints it adds no service: it has a breaker judge the endpoint at its gate, so that the
///   balancer goes elsewhere, and no caller sees an error. Classifier and completion are the balancer's then.
///
/// # Clone
///
/// However often [`layer`](Layer::layer) is called, on this value or on its clones, the services share one breaker. An
/// endpoint has one breaker, whichever layer comes first.
#[derive(Clone)]
pub struct BreakerLayer<K = ClassifyErrors, C = CompleteOnResponse> {
    settings: Arc<Settings>,
    breaker: Breaker,
    classify: K,
    completion: C,
}

const UNNAMED: &str = "the service";

impl BreakerLayer {
    /// A layer whose breakers follow `policy`.
    pub fn new(policy: Policy) -> Self {
        let settings = Arc::new(Settings::new(policy));
        let breaker = Breaker::new(UNNAMED.into(), &settings);
        Self::of(breaker, settings)
    }

    pub(crate) fn of(breaker: Breaker, settings: Arc<Settings>) -> Self {
        Self {
            settings,
            breaker,
            classify: ClassifyErrors::default(),
            completion: CompleteOnResponse::default(),
        }
    }
}

/// With the defaults of [`Policy`].
impl Default for BreakerLayer {
    fn default() -> Self {
        Self::new(Policy::default())
    }
}

impl<K, C> BreakerLayer<K, C> {
    /// Names the breaker of the services, for errors, events and logs. It begins anew.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        self.anew(name.into(), |_| {})
    }

    /// Takes time from `clock`. The breaker begins anew.
    #[must_use]
    pub fn clock(self, clock: Clock) -> Self {
        let name = Arc::clone(self.breaker.name());
        self.anew(name, |settings| settings.clock = clock)
    }

    /// Takes the jitter of open times, and the draws of a ramp, from `rng`. The breaker begins anew.
    #[must_use]
    pub fn rng(self, rng: Rng) -> Self {
        let name = Arc::clone(self.breaker.name());
        self.anew(name, |settings| settings.rng = rng)
    }

    fn anew(mut self, name: Arc<str>, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.settings.apart();
        change(&mut settings);
        self.settings = Arc::new(settings);
        self.breaker = Breaker::new(name, &self.settings);
        self
    }

    /// Decides with `classify` what an answer says of the service; errors alone speak against it if nothing is said.
    #[must_use]
    pub fn classify<L>(self, classify: L) -> BreakerLayer<L, C> {
        BreakerLayer {
            settings: self.settings,
            breaker: self.breaker,
            classify,
            completion: self.completion,
        }
    }

    /// Ends a call as `completion` says; with the response if nothing is said.
    #[must_use]
    pub fn completion<D>(self, completion: D) -> BreakerLayer<K, D> {
        BreakerLayer {
            settings: self.settings,
            breaker: self.breaker,
            classify: self.classify,
            completion,
        }
    }

    /// The breaker of the services that this layer makes.
    pub fn handle(&self) -> &Breaker {
        &self.breaker
    }

    /// The breaker of an endpoint, once a layer has been made for it.
    pub fn breaker(&self, endpoint: &Endpoint) -> Option<Breaker> {
        Breaker::of(endpoint)
    }

    /// Has all its breakers, its services' and its endpoints', follow `policy` from now on. What they have counted stays,
    /// and one that is open stays so until the time that it was given.
    ///
    /// # Errors
    ///
    /// [`CountsOtherwise`] if they would have to count anew for that; nothing has changed then.
    pub fn follow(&self, policy: Policy) -> Result<(), CountsOtherwise> {
        self.settings.follow(policy)
    }

    /// The transitions of all breakers of this layer from now on: its services' and its endpoints'.
    pub fn transitions(&self) -> Transitions {
        self.settings.events.listen()
    }
}

impl<S, K: Clone, C: Clone> Layer<S> for BreakerLayer<K, C> {
    type Service = CircuitBreaker<S, K, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker::new(
            inner,
            self.breaker.clone(),
            self.classify.clone(),
            self.completion.clone(),
        )
    }
}

impl<K, C> NewLayer<Endpoint> for BreakerLayer<K, C> {
    type Layer = Identity;

    fn layer_for(&self, endpoint: &Endpoint) -> Identity {
        Breaker::attach(endpoint, &self.settings);
        Identity::new()
    }
}

impl<K, C> fmt::Debug for BreakerLayer<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerLayer")
            .field("policy", &**self.settings.policy.load())
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}
