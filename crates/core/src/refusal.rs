//! What every layer refuses with.

use std::{borrow::Cow, error::Error, fmt, sync::Arc, time::Duration};

use crate::outcome::{BoxError, Outcome, Pushback};

/// Why a call was refused, whether it may have been sent, and when to come back: the one thing that retry, the HTTP
/// layers and the top-level error read of any layer's error.
///
/// A layer's own error wraps it and gives it from `source()`. What made the layer refuse, if another error did, is the
/// refusal's own `source()`, see [`with_cause`](Self::with_cause).
///
/// Two refusals are equal if they say the same; their causes are not compared.
#[derive(Clone, Debug)]
pub struct Refusal {
    kind: Kind,
    sent: Sent,
    local: bool,
    retry_after: Option<Duration>,
    context: Cow<'static, str>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

/// What a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The registry knows no service of this name.
    ServiceNotFound,
    /// No endpoint of the service may take the call.
    NoEndpoint,
    /// The breaker is open.
    CircuitOpen,
    /// The time of the call is up.
    DeadlineExceeded,
    /// Every attempt has failed.
    AttemptsExhausted,
    /// As many calls run or wait as may.
    Overloaded,
    /// The mesh is shutting down.
    ShuttingDown,
    /// No connection could be made.
    Connect,
    /// The connection broke, or the endpoint broke the protocol.
    Transport,
}

impl Kind {
    /// The word for it in logs, labels and remote answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServiceNotFound => "service_not_found",
            Self::NoEndpoint => "no_endpoint",
            Self::CircuitOpen => "circuit_open",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::Overloaded => "overloaded",
            Self::ShuttingDown => "shutting_down",
            Self::Connect => "connect",
            Self::Transport => "transport",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a request may have reached the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sent {
    /// Surely not.
    Never,
    /// It may have.
    Maybe,
}

impl Refusal {
    /// A refusal by the mesh itself: nothing was sent, and it says nothing of an endpoint.
    pub const fn local(kind: Kind) -> Self {
        Self {
            kind,
            sent: Sent::Never,
            local: true,
            retry_after: None,
            context: Cow::Borrowed(""),
            cause: None,
        }
    }

    /// A failure on the way to an endpoint, or of it.
    pub const fn remote(kind: Kind, sent: Sent) -> Self {
        Self {
            kind,
            sent,
            local: false,
            retry_after: None,
            context: Cow::Borrowed(""),
            cause: None,
        }
    }

    /// The same, but an attempt may have been sent.
    #[must_use]
    pub fn maybe_sent(mut self) -> Self {
        self.sent = Sent::Maybe;
        self
    }

    /// The same, with the time after which it may be different.
    #[must_use]
    pub fn with_retry_after(mut self, after: Option<Duration>) -> Self {
        self.retry_after = after;
        self
    }

    /// The same, with what a person has to know to act on it.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<Cow<'static, str>>) -> Self {
        self.context = context.into();
        self
    }

    /// The same, with the error that led to it as its source.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<BoxError>) -> Self {
        let cause: BoxError = cause.into();
        self.cause = Some(cause.into());
        self
    }

    /// The refusal in `error` or in what caused it, the outermost first.
    pub fn of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(refusal) = error.downcast_ref() {
                return Some(refusal);
            }
            next = error.source();
        }
        None
    }

    /// What it is about.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the request may have reached an endpoint.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// Whether the mesh itself refused, so that it says nothing of an endpoint.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// After what time it may be different, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// What a person has to know to act on it; may be empty.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The error that led to it, if there was one.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.cause.as_deref()
    }

    /// What it says of the endpoint.
    pub fn outcome(&self) -> Outcome {
        let outcome = match (self.local, self.kind) {
            (_, Kind::DeadlineExceeded) => Outcome::timeout(),
            (true, _) => Outcome::neutral(),
            (false, Kind::Overloaded) => Outcome::overload(),
            (false, _) => Outcome::failure(),
        };
        let outcome = match self.retry_after {
            Some(after) => outcome.with_pushback(Pushback::After(after)),
            None => outcome,
        };
        match self.sent {
            Sent::Never => outcome.never_sent(),
            Sent::Maybe => outcome,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::ServiceNotFound => "service not found",
            Kind::NoEndpoint => "no endpoint available",
            Kind::CircuitOpen => "circuit open",
            Kind::DeadlineExceeded => "deadline exceeded",
            Kind::AttemptsExhausted => "attempts exhausted",
            Kind::Overloaded => "overloaded",
            Kind::ShuttingDown => "shutting down",
            Kind::Connect => "cannot connect",
            Kind::Transport => "connection failed",
        })?;
        if !self.context.is_empty() {
            write!(f, ": {}", self.context)?;
        }
        if let Some(after) = self.retry_after {
            write!(f, " (retry after {after:.1?})")?;
        }
        Ok(())
    }
}

impl PartialEq for Refusal {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.sent == other.sent
            && self.local == other.local
            && self.retry_after == other.retry_after
            && self.context == other.context
    }
}

impl Eq for Refusal {}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            Some(cause) => Some(&**cause),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Class;

    #[derive(Debug)]
    struct Wrapper(Refusal);

    impl fmt::Display for Wrapper {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("wrapper")
        }
    }

    impl Error for Wrapper {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_refusal_is_found_beneath_any_error() {
        let wrapped = Wrapper(Refusal::local(Kind::CircuitOpen));
        assert_eq!(
            Refusal::of(&wrapped).map(Refusal::kind),
            Some(Kind::CircuitOpen)
        );
        assert_eq!(Refusal::of(&fmt::Error), None);
    }

    #[test]
    fn what_led_to_a_refusal_is_its_source() {
        let cause = Refusal::remote(Kind::Connect, Sent::Never);
        let refusal = Refusal::remote(Kind::AttemptsExhausted, Sent::Never);
        let caused = refusal.clone().with_cause(cause.clone());
        assert_eq!(caused, refusal);
        assert_eq!(Refusal::of(&caused), Some(&refusal), "the outermost");
        assert_eq!(caused.source().and_then(Refusal::of), Some(&cause));
        assert!(caused.cause().is_some_and(|error| error.is::<Refusal>()));
    }

    #[test]
    fn only_what_is_not_local_speaks_against_an_endpoint() {
        let local = Refusal::local(Kind::Overloaded).outcome();
        assert_eq!((local.class(), local.sent()), (Class::Neutral, Sent::Never));
        let connect = Refusal::remote(Kind::Connect, Sent::Never).outcome();
        assert_eq!(
            (connect.class(), connect.sent()),
            (Class::Failure, Sent::Never)
        );
        let timeout = Refusal::local(Kind::DeadlineExceeded)
            .maybe_sent()
            .outcome();
        assert_eq!(
            (timeout.class(), timeout.sent()),
            (Class::Timeout, Sent::Maybe)
        );
    }

    #[test]
    fn the_message_is_for_a_person() {
        let refusal = Refusal::local(Kind::NoEndpoint)
            .with_context("orders: 3 known, 3 with open breaker")
            .with_retry_after(Some(Duration::from_millis(1500)));
        assert_eq!(
            refusal.to_string(),
            "no endpoint available: orders: 3 known, 3 with open breaker (retry after 1.5s)"
        );
    }
}
