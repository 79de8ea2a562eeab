//! One of several sources, followed for one service.

use std::{
    collections::HashSet,
    sync::Arc,
    task::{Context, Poll},
};

use tower_mesh_core::{
    Empties, Endpoint, Instant, Resolve, ResolveError, Rng, ServiceName, Update,
};

use super::choice::{Said, Standing};
use crate::{
    backoff::Backoff,
    source::{Heard, Heed, Source},
};

pub(super) struct Part {
    resolve: Arc<dyn Resolve>,
    source: Source,
    backoff: Backoff,
    /// Not listened to before.
    pub(super) resume: Instant,
    pub(super) standing: Standing,
    /// What it has said of the service; none if it does not know it.
    known: Option<Vec<Endpoint>>,
    /// Counts its answers.
    pub(super) answers: u64,
    error: Option<Box<str>>,
    error_is_fresh: bool,
}

impl Part {
    pub(super) fn new(resolve: &Arc<dyn Resolve>) -> Self {
        Self {
            resolve: Arc::clone(resolve),
            source: Source::default(),
            backoff: Backoff::default(),
            resume: Instant::from_nanos(0),
            standing: Standing::default(),
            known: None,
            answers: 0,
            error: None,
            error_is_fresh: false,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.resolve.name()
    }

    /// Takes in one report; whether there was one.
    pub(super) fn listen(
        &mut self,
        service: &ServiceName,
        now: Instant,
        rng: &Rng,
        cx: &mut Context<'_>,
    ) -> bool {
        if now < self.resume {
            return false;
        }
        match self.source.poll(&*self.resolve, service, cx) {
            Poll::Pending => return false,
            Poll::Ready(Heed::Update(update)) => {
                self.backoff.reset();
                self.take(update, now);
            }
            Poll::Ready(Heed::Failed(error)) => self.failed(error, now),
            Poll::Ready(Heed::Panicked(error)) => {
                self.failed(error, now);
                self.resume = now + self.backoff.next(rng);
            }
            Poll::Ready(Heed::Ended) => {
                if self.source.heard() != Heard::Answer {
                    self.failed("the source ended without an answer".into(), now);
                }
                self.resume = now + self.backoff.next(rng);
            }
        }
        true
    }

    fn take(&mut self, update: Update, now: Instant) {
        match update {
            Update::Replace(endpoints) => self.known = Some(endpoints),
            Update::Absent => self.known = None,
            Update::Patch { upsert, remove } => patch(&mut self.known, upsert, &remove),
            _ => return self.failed("the update is of an unknown kind".into(), now),
        }
        let authority = self.resolve.empties() == Empties::Authoritative;
        let said = match &self.known {
            Some(endpoints) if authority || !endpoints.is_empty() => Said::Endpoints,
            None if authority => Said::Unknown,
            _ => Said::Suspect,
        };
        self.standing.answered(said, now);
        self.answers += 1;
        self.error = None;
        self.error_is_fresh = false;
    }

    fn failed(&mut self, error: Box<str>, now: Instant) {
        self.standing.failed(now);
        self.error = Some(error);
        self.error_is_fresh = true;
    }

    /// What it says, if it has said anything.
    pub(super) fn update(&self) -> Option<Update> {
        self.standing.said?;
        Some(match &self.known {
            Some(endpoints) => Update::Replace(endpoints.clone()),
            None => Update::Absent,
        })
    }

    /// Its error, if it was not told yet.
    pub(super) fn fresh_error(&mut self) -> Option<ResolveError> {
        let fresh = std::mem::take(&mut self.error_is_fresh);
        let error = self.error.as_ref().filter(|_| fresh)?;
        Some(ResolveError::new(format!("{}: {error}", self.name())))
    }

    /// Why it is not used.
    pub(super) fn why(&self) -> &str {
        match (&self.error, self.standing.said) {
            (Some(error), _) => error,
            (None, None) => "it has not answered yet",
            (None, Some(Said::Unknown)) => "it does not know the service",
            (None, Some(Said::Suspect)) => "it names no endpoints",
            (None, Some(Said::Endpoints)) => "it has only just come back",
        }
    }
}

fn patch(known: &mut Option<Vec<Endpoint>>, upsert: Vec<Endpoint>, remove: &[Box<str>]) {
    let known = known.get_or_insert_default();
    let named = upsert.iter().map(Endpoint::id);
    let gone: HashSet<&str> = named.chain(remove.iter().map(|id| &**id)).collect();
    known.retain(|endpoint| !gone.contains(endpoint.id()));
    known.extend(upsert);
}
