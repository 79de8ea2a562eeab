//! The guard of a call that a breaker has admitted.

use std::fmt;

use tower_mesh_core::{Class, Finish, Instant, Judge, Outcome, Ticket, frame};

use crate::{breaker::Breaker, error::Open};

/// A call that a breaker has admitted. It takes the call's outcome to the breaker, once.
///
/// Dropped without an outcome it was abandoned: it says nothing, and if it was a probe its place is free again; unless
/// it is dropped because the mesh's own time is up ([`frame::timing_out`]), which is a timeout.
#[must_use = "dropping it abandons the call"]
pub struct Permit {
    breaker: Breaker,
    stage: Stage,
    ticket: Ticket,
    start: Instant,
}

/// A permit is made before it is asked for and stays where it is, since to move it costs more than to get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The breaker has not been asked.
    Waiting,
    /// The call is under way.
    Granted,
    /// The call has ended, or was refused.
    Over,
}

impl Permit {
    pub(crate) fn waiting(breaker: Breaker) -> Self {
        Self {
            breaker,
            stage: Stage::Waiting,
            ticket: Ticket::new(0, false),
            start: Instant::from_nanos(0),
        }
    }

    /// Asks the breaker, unless it has been asked.
    pub(crate) fn ask(&mut self) -> Result<(), Open> {
        if self.stage != Stage::Waiting {
            return Ok(());
        }
        let judge = self.breaker.judge();
        self.start = judge.now();
        judge.touch(self.start);
        match judge.admit(self.start) {
            Ok(ticket) => {
                self.ticket = ticket;
                self.stage = Stage::Granted;
                Ok(())
            }
            Err(shut) => {
                self.stage = Stage::Over;
                Err(Open::new(judge.name(), judge.state(), shut, self.start))
            }
        }
    }

    /// Whether it is a probe.
    pub fn is_probe(&self) -> bool {
        self.ticket.is_probe()
    }
}

impl Finish for Permit {
    fn finish(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.stage, Stage::Over) != Stage::Granted {
            return;
        }
        let judge = self.breaker.judge();
        if outcome.class() == Class::Neutral {
            judge.release(self.ticket);
            return;
        }
        let now = judge.now();
        if outcome.is_success() {
            let nanos = now.as_nanos().saturating_sub(self.start.as_nanos());
            judge.succeed(self.ticket, nanos, now);
        } else {
            judge.report(self.ticket, outcome, now.since(self.start), now);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.stage == Stage::Granted {
            self.finish(if frame::is_timing_out() {
                Outcome::timeout()
            } else {
                Outcome::neutral()
            });
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("breaker", self.breaker.name())
            .field("stage", &self.stage)
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}
