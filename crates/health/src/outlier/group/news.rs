//! What happened under the lock, to be told when it is free.

use std::task::Waker;

use tower_mesh_core::{Endpoint, Endpoints, Instant};

use super::Ward;
use crate::outlier::judge::Sentence;

/// Ejections and returns for the log, and who has to be woken.
#[derive(Debug, Default)]
pub(super) struct News {
    notes: Vec<Note>,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Note {
    Ejected(Endpoint, Sentence, Instant),
    Returned(Endpoint, Return),
}

/// Why an endpoint is no longer ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Return {
    TimeOver,
    Healthy,
    TooManyOut,
    NoRules,
    ByHand,
    Stopped,
}

impl Return {
    const fn as_str(self) -> &'static str {
        match self {
            Self::TimeOver => "time_over",
            Self::Healthy => "healthy_check",
            Self::TooManyOut => "too_many_out",
            Self::NoRules => "no_rules",
            Self::ByHand => "by_hand",
            Self::Stopped => "stopped",
        }
    }
}

impl News {
    pub(super) fn ejected(&mut self, endpoint: &Endpoint, sentence: Sentence, now: Instant) {
        self.notes
            .push(Note::Ejected(endpoint.clone(), sentence, now));
    }

    pub(super) fn returned(&mut self, endpoint: &Endpoint, why: Return) {
        self.notes.push(Note::Returned(endpoint.clone(), why));
    }

    /// Has the driver look again when to wake.
    pub(super) fn wake(&mut self, ward: &mut Ward) {
        if let Some(waker) = ward.waker.take() {
            self.waker = Some(waker);
        }
    }

    pub(super) fn tell(self, endpoints: &Endpoints) {
        let service = endpoints.service().as_str();
        for note in self.notes {
            match note {
                Note::Ejected(endpoint, sentence, now) => tracing::warn!(
                    service,
                    endpoint = endpoint.id(),
                    reason = sentence.reason.as_str(),
                    times = sentence.times,
                    lasts = ?sentence.until.since(now),
                    "endpoint ejected"
                ),
                Note::Returned(endpoint, why) => tracing::info!(
                    service,
                    endpoint = endpoint.id(),
                    why = why.as_str(),
                    "endpoint no longer ejected"
                ),
            }
        }
        if let Some(waker) = self.waker {
            waker.wake();
        }
    }
}
