//! Why no endpoint takes a call.

use std::{error::Error, fmt, time::Duration};

use tower_mesh_core::{EndpointSet, JudgeKind, Kind, Refusal, Resolution, ServiceName};

/// No endpoint of the service may take the call. Nothing was sent.
///
/// Its `source()` is the [`Refusal`], of kind [`Kind::NoEndpoint`], or [`Kind::ServiceNotFound`] if the registry knows no
/// such service.
#[derive(Debug)]
pub struct NoEndpoint {
    refusal: Refusal,
    tally: Tally,
}

/// What keeps an endpoint from taking calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// This judge keeps its gate shut.
    Judge(JudgeKind),
    /// Its weight is zero.
    Weightless,
    /// Making its service panicked.
    NotMade,
    /// It is left to [other clients](crate::Subset).
    NotInSubset,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Judge(JudgeKind::Breaker) => "with an open breaker",
            Self::Judge(JudgeKind::Outlier) => "ejected as outliers",
            Self::Judge(JudgeKind::Health) => "failing health checks",
            Self::Judge(JudgeKind::Drain) => "draining",
            Self::Judge(_) => "shut",
            Self::Weightless => "of weight 0",
            Self::NotMade => "whose service could not be made",
            Self::NotInSubset => "left to other clients",
        })
    }
}

/// How many endpoints are out, and why.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    known: usize,
    out: Vec<(Reason, usize)>,
    retry_after: Option<Duration>,
}

impl Tally {
    /// Counts an endpoint that is out for `reason`, for so long if that is known.
    pub(crate) fn count(&mut self, reason: Reason, back_in: Option<Duration>) {
        self.known += 1;
        match self.out.iter_mut().find(|(counted, _)| *counted == reason) {
            Some((_, count)) => *count += 1,
            None => self.out.push((reason, 1)),
        }
        let earliest = self.retry_after.into_iter().chain(back_in).min();
        self.retry_after = earliest;
    }
}

impl NoEndpoint {
    pub(crate) fn new(service: &ServiceName, set: &EndpointSet, tally: Tally) -> Self {
        let refuse = |kind, why: &dyn fmt::Display| {
            Refusal::local(kind).with_context(format!("{service}: {why}"))
        };
        let refusal = match set.resolution() {
            Resolution::Absent => refuse(
                Kind::ServiceNotFound,
                &"the registry knows no service of this name",
            ),
            Resolution::Pending => refuse(Kind::NoEndpoint, &"the registry has not answered yet"),
            Resolution::Found => refuse(Kind::NoEndpoint, &tally),
        };
        Self {
            refusal: refusal.with_retry_after(tally.retry_after),
            tally,
        }
    }

    /// How many endpoints the registry lists.
    pub fn known(&self) -> usize {
        self.tally.known
    }

    /// How many of them are out, for each reason.
    pub fn out(&self) -> impl Iterator<Item = (Reason, usize)> + '_ {
        self.tally.out.iter().copied()
    }

    /// When the first of them may be back, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.tally.retry_after
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.known == 0 {
            return f.write_str("the registry lists none");
        }
        write!(f, "{} known", self.known)?;
        for (reason, count) in &self.out {
            write!(f, ", {count} {reason}")?;
        }
        Ok(())
    }
}

impl fmt::Display for NoEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)
    }
}

impl Error for NoEndpoint {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.refusal)
    }
}
