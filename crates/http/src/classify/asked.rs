//! A classification of a call's own, as its response carries it up to those who act on it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use http::{Extensions, HeaderMap, Response};
use tower_mesh_core::{BoxError, Outcome, Verdict};

use super::End;
use crate::{error, verdict::Ending};

/// Asked once, when the response has ended.
pub(super) type Last = Box<dyn FnOnce(End<'_>, Option<Outcome>) -> Option<Outcome> + Send>;

/// What the end of a body will mean, and who says so.
#[derive(Debug)]
pub(crate) enum Meaning {
    Usual(Ending),
    /// The call has a classification of its own.
    Asked(Asked),
}

impl Meaning {
    pub(crate) const PLAIN: Self = Self::Usual(Ending::Plain);

    pub(crate) fn of<B>(response: &Response<B>) -> Self {
        match Asked::of(response.extensions()) {
            Some(asked) => Self::Asked(asked.clone()),
            None => Self::Usual(Ending::of(response.status(), response.headers())),
        }
    }

    /// What the end says, which came with `trailers` or without any.
    pub(crate) fn at_end(&self, trailers: Option<&HeaderMap>) -> Outcome {
        match self {
            Self::Usual(ending) => ending.at_end(trailers),
            Self::Asked(asked) => asked.at_end(trailers),
        }
    }

    /// What it says that the body broke off.
    pub(crate) fn at_break(&self, error: &BoxError) -> Outcome {
        match self {
            Self::Usual(_) => error::outcome(&**error),
            Self::Asked(asked) => asked.at_break(error),
        }
    }
}

/// In the extensions of a response: what was said of its head, and who is asked at its end.
#[derive(Clone)]
pub(crate) struct Asked(Arc<Call>);

struct Call {
    head: Verdict,
    usual: Meaning,
    end: Mutex<AtEnd>,
}

enum AtEnd {
    Open(Last),
    /// Kept, since more than one may hold guards to the end of a body.
    Said(Option<Outcome>),
}

impl Asked {
    /// The head decided.
    pub(super) fn said(outcome: Outcome, usual: Meaning) -> Self {
        Self(Arc::new(Call {
            head: outcome.into(),
            usual,
            end: Mutex::new(AtEnd::Said(Some(outcome))),
        }))
    }

    /// The end will decide.
    pub(super) fn deferred(last: Last, usual: Meaning) -> Self {
        Self(Arc::new(Call {
            head: Verdict::Deferred,
            usual,
            end: Mutex::new(AtEnd::Open(last)),
        }))
    }

    pub(crate) fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    #[cold]
    pub(crate) fn head(&self) -> Verdict {
        self.0.head
    }

    #[cold]
    pub(crate) fn at_end(&self, trailers: Option<&HeaderMap>) -> Outcome {
        let usual = self.0.usual.at_end(trailers);
        let said = self.ask(End::Complete(trailers), Some(usual));
        said.unwrap_or(Outcome::neutral())
    }

    #[cold]
    pub(crate) fn at_break(&self, error: &BoxError) -> Outcome {
        let usual = self.0.usual.at_break(error);
        let said = self.ask(End::Error(&**error), Some(usual));
        said.unwrap_or(Outcome::neutral())
    }

    #[cold]
    pub(crate) fn at_drop(&self) -> Option<Outcome> {
        self.ask(End::Dropped, None)
    }

    fn ask(&self, end: End<'_>, usual: Option<Outcome>) -> Option<Outcome> {
        let open = std::mem::replace(&mut *self.lock(), AtEnd::Said(usual));
        let last = match open {
            AtEnd::Open(last) => last,
            AtEnd::Said(said) => {
                *self.lock() = AtEnd::Said(said);
                return said;
            }
        };
        // Outside the lock: it is a user's.
        let said = last(end, usual);
        *self.lock() = AtEnd::Said(said);
        said
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, AtEnd> {
        self.0.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked")
            .field("head", &self.0.head)
            .finish_non_exhaustive()
    }
}
