use std::{marker::PhantomData, num::NonZeroU32, sync::Arc, time::Duration};

use tower_layer::Layer;
use tower_mesh_core::{
    ClassifyErrors, Clock, CloneIdempotent, Rng,
    frame::{Joined, Own},
};

use crate::{
    backoff::Backoff,
    budget::Budget,
    limits::Limits,
    service::{Retry, Rules},
};

/// Tries again what may be tried again, see the [crate](crate).
///
/// | setting | default | why |
/// |---|---|---|
/// | `attempts` | 3, the first included | Google SRE |
/// | `budget` | 10 % of the calls and 1 a second | [`Budget`] says why |
/// | `backoff` | 25 ms to 250 ms, full jitter | Envoy |
/// | `per_try_timeout` | none | how long an answer may take is not for a default to say |
/// | `replay` | [`CloneIdempotent`] | for requests that are plain values |
/// | `classify` | [`ClassifyErrors`] | every response is a success |
///
/// # Clone
///
/// A clone, and every service made by either, shares the budget.
#[derive(Clone, Debug)]
pub struct RetryLayer<R = CloneIdempotent, K = ClassifyErrors, G = Own> {
    rules: Rules<R, K>,
    framing: PhantomData<G>,
}

impl RetryLayer {
    /// Retries as far as `budget` allows.
    pub fn new(budget: Budget) -> Self {
        Self {
            rules: Rules {
                budget,
                limits: Limits {
                    attempts: const { NonZeroU32::new(3).expect("three is not zero") },
                    backoff: Backoff::default(),
                    per_try: None,
                },
                replay: CloneIdempotent::default(),
                classify: ClassifyErrors::default(),
                clock: Clock::default(),
                rng: Rng::default(),
            },
            framing: PhantomData,
        }
    }
}

impl Default for RetryLayer {
    fn default() -> Self {
        Self::new(Budget::default())
    }
}

impl<R, K, G> RetryLayer<R, K, G> {
    /// Sets how many attempts a call may make, the first included.
    #[must_use]
    pub fn attempts(mut self, attempts: NonZeroU32) -> Self {
        self.rules.limits.attempts = attempts;
        self
    }

    /// Sets how long to wait before a retry, unless the endpoint says it.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.rules.limits.backoff = backoff;
        self
    }

    /// Sets how long one attempt may take, readiness included. If the deadline of the call is nearer, or the attempt is
    /// the last, that holds instead.
    #[must_use]
    pub fn per_try_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.rules.limits.per_try = timeout.into();
        self
    }

    /// Sets how requests are kept, and which are idempotent.
    #[must_use]
    pub fn replay<R2>(self, replay: R2) -> RetryLayer<R2, K, G> {
        self.with(|rules| Rules {
            replay,
            budget: rules.budget,
            limits: rules.limits,
            classify: rules.classify,
            clock: rules.clock,
            rng: rules.rng,
        })
    }

    /// Sets what responses and errors mean.
    #[must_use]
    pub fn classify<K2>(self, classify: K2) -> RetryLayer<R, K2, G> {
        self.with(|rules| Rules {
            classify,
            budget: rules.budget,
            limits: rules.limits,
            replay: rules.replay,
            clock: rules.clock,
            rng: rules.rng,
        })
    }

    fn with<R2, K2>(
        self,
        change: impl FnOnce(Rules<R, K>) -> Rules<R2, K2>,
    ) -> RetryLayer<R2, K2, G> {
        RetryLayer {
            rules: change(self.rules),
            framing: PhantomData,
        }
    }

    /// Says that a layer above opens the frame of the calls, with the same clock: they need no room for a timer.
    ///
    /// Without such a layer a call panics when it is first polled.
    pub fn joined(self) -> RetryLayer<R, K, Joined> {
        RetryLayer {
            rules: self.rules,
            framing: PhantomData,
        }
    }

    /// Sets where time comes from.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.rules.clock = clock;
        self
    }

    /// Sets where jitter comes from.
    #[must_use]
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rules.rng = rng;
        self
    }
}

impl<R: Clone, K: Clone, G> RetryLayer<R, K, G> {
    /// Puts it directly over `inner`, which must be always ready: the first attempt calls it in `call`, without being
    /// asked.
    ///
    /// Right for a service that reserves nothing in `poll_ready` and begins nothing before its future is polled, as all
    /// of tower-mesh's.
    pub fn over<S>(&self, inner: S) -> Retry<S, R, K, G> {
        Retry::new(inner, true, Arc::new(self.rules.clone()))
    }
}

impl<S, R: Clone, K: Clone, G> Layer<S> for RetryLayer<R, K, G> {
    type Service = Retry<S, R, K, G>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry::new(inner, false, Arc::new(self.rules.clone()))
    }
}
