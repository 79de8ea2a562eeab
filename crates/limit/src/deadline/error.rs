//! The error of a deadline.

use std::{error::Error, fmt, time::Duration};

use tower_mesh_core::{
    Kind, Refusal, Sent,
    frame::{Phase, Spent},
};

/// The time of the call is up.
///
/// The [`Refusal`] of kind [`Kind::DeadlineExceeded`] is its `source()`; it says whether the request may have been sent.
#[derive(Clone, Debug)]
pub struct DeadlineExceeded {
    limit: Duration,
    spent: Spent,
    refusal: Refusal,
}

impl DeadlineExceeded {
    /// It had passed before the call began.
    #[cold]
    pub(crate) fn already() -> Self {
        Self {
            limit: Duration::ZERO,
            spent: Spent::default(),
            refusal: Refusal::local(Kind::DeadlineExceeded)
                .with_context("it had passed before the call began"),
        }
    }

    /// It has passed after `limit`.
    #[cold]
    pub(crate) fn after(limit: Duration, spent: Spent, sent: Sent) -> Self {
        let context = format!("the call had {limit:?}{}", Account(&spent));
        let refusal = Refusal::local(Kind::DeadlineExceeded).with_context(context);
        Self {
            limit,
            spent,
            refusal: match sent {
                Sent::Never => refusal,
                Sent::Maybe => refusal.maybe_sent(),
            },
        }
    }

    /// How long the call had, from when the layer that ended it first saw it: that layer's own limit, or less if the
    /// deadline was inherited.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Where the time went, and what the call was waiting for last.
    pub fn spent(&self) -> Spent {
        self.spent
    }
}

/// `, of which 20ms waiting for a permit, 80ms in 2 attempts`
struct Account<'a>(&'a Spent);

impl fmt::Display for Account<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spent = self.0;
        let mut before = ", of which ";
        let mut item = |time: Duration, phase: Phase, what: fmt::Arguments<'_>| {
            if time.is_zero() && spent.phase != phase {
                return Ok(());
            }
            write!(f, "{before}{time:?} {what}")?;
            before = ", ";
            Ok(())
        };
        item(
            spent.discovery,
            Phase::Discovery,
            format_args!("waiting for the registry"),
        )?;
        item(
            spent.queue,
            Phase::Queue,
            format_args!("waiting for a permit"),
        )?;
        match spent.attempt {
            0 => item(
                spent.attempts,
                Phase::Attempt,
                format_args!("in the service"),
            )?,
            1 => item(spent.attempts, Phase::Attempt, format_args!("in 1 attempt"))?,
            n => item(
                spent.attempts,
                Phase::Attempt,
                format_args!("in {n} attempts"),
            )?,
        }
        item(
            spent.backoff,
            Phase::Backoff,
            format_args!("between attempts"),
        )
    }
}

impl fmt::Display for DeadlineExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)
    }
}

impl Error for DeadlineExceeded {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.refusal)
    }
}
