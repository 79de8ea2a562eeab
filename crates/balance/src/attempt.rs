//! The attempt of a call: what becomes of it when the call fails, panics or goes away.

use std::mem;

use tower_mesh_core::{
    AtEndpoint, Attempt, BoxError, Class, Classify, Finish, Kind, Outcome, Refusal, Report, Sent,
    Verdict,
};

/// Counts `error` against the endpoint of `attempt`, as far as it says something of it, and names the endpoint.
#[cold]
pub(crate) fn blame<Res>(
    classify: &impl Classify<Res>,
    attempt: &mut Unanswered,
    error: BoxError,
) -> BoxError {
    let bomb = Bomb(attempt);
    let verdict = classify.classify(Err(&*error)).into();
    let mut attempt = bomb.take();
    let outcome = match verdict {
        Verdict::Done(outcome) => outcome,
        // An error has no body whose end could tell.
        Verdict::Deferred => Outcome::failure(),
    };
    if outcome.class() == Class::Neutral {
        // What refuses at once without a verdict would otherwise look idle, and draw every call.
        attempt.give_up();
    }
    attempt.finish(outcome);
    match attempt.vitals().endpoint() {
        Some(endpoint) => AtEndpoint::new(endpoint, error).into(),
        None => error,
    }
}

/// An error of readiness: the request is still here, so it may go elsewhere whatever it is.
pub(crate) fn unsent(error: BoxError) -> BoxError {
    match Refusal::of(&*error).map(Refusal::sent) {
        Some(Sent::Never) => error,
        _ => Refusal::remote(Kind::Connect, Sent::Never)
            .with_context("the endpoint did not become ready")
            .with_cause(error)
            .into(),
    }
}

/// The attempt of a call that has no answer. Dropped, the call is given up.
#[derive(Debug, Default)]
pub(crate) struct Unanswered(pub(crate) Option<Attempt>);

impl Unanswered {
    /// The key of its endpoint.
    pub(crate) fn key(&self) -> u32 {
        self.0.as_ref().map_or(0, |attempt| attempt.vitals().key())
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(attempt) = &self.0 {
            attempt.give_up();
        }
    }
}

/// Stands beside user code that speaks for an endpoint: if that panics, the attempt has failed. Without it the attempt
/// would be dropped during unwinding, as if the caller had gone away.
pub(crate) struct Bomb<'a>(pub(crate) &'a mut Unanswered);

impl Bomb<'_> {
    pub(crate) fn defuse(self) {
        mem::forget(self);
    }

    pub(crate) fn finish(&mut self, outcome: Outcome) {
        if let Some(attempt) = &mut self.0.0 {
            attempt.finish(outcome);
        }
    }

    pub(crate) fn report(&self, report: Report) {
        if let Some(attempt) = &self.0.0 {
            attempt.report(report);
        }
    }

    pub(crate) fn take(self) -> Attempt {
        self.0.0.take().expect("an answer belongs to an attempt")
    }
}

impl Drop for Bomb<'_> {
    fn drop(&mut self) {
        self.finish(Outcome::failure());
    }
}
