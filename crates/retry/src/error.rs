//! What a call fails with when retries could not help.

use std::{
    error::Error,
    fmt::{self, Write},
    time::Duration,
};

use tower_mesh_core::{
    AtEndpoint, BoxError, Class, Endpoint, Kind, Outcome, Pushback, Refusal, Sent,
};

/// Attempts have failed, and no further one was made.
///
/// It tells of each attempt, and why it was the last. Its source is the [`Refusal`] (`attempts_exhausted`), whose
/// source is the error of the last attempt: [`last`](Self::last). From a hedge [beneath a
/// retry](crate::HedgeLayer::beneath_retry) the refusal is of the kind of the last attempt's, since the retry has yet to
/// decide.
#[derive(Debug)]
pub struct Exhausted {
    refusal: Refusal,
    why: Why,
    made: u32,
    attempts: Vec<FailedAttempt>,
}

/// Why no further attempt was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// As many were made as are allowed.
    AttemptsUsedUp,
    /// The retry budget was empty.
    BudgetEmpty,
    /// It would have begun after the deadline of the call.
    Deadline,
    /// The endpoint asked not to try again, or not for a very long time.
    Pushback,
    /// The request may have been sent, and sending it twice may do more than sending it once.
    NotIdempotent,
    /// The request could not be kept, or not be made again.
    CannotRepeat,
    /// The last failure says nothing of an endpoint: another attempt would not have met a better one.
    NotRetryable,
    /// No other endpoint would have taken a hedge.
    NowhereElse,
    /// These were the attempts of a hedge beneath a retry, which decides.
    LeftToRetry,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AttemptsUsedUp => "no more are allowed",
            Self::BudgetEmpty => "the retry budget is used up",
            Self::Deadline => "the next would begin after the deadline",
            Self::Pushback => "the endpoint asked not to be tried again now",
            Self::NotIdempotent => "the request may have been sent and is not idempotent",
            Self::CannotRepeat => "the request cannot be sent again",
            Self::NotRetryable => "the last one's error is none that a retry helps against",
            Self::NowhereElse => "no other endpoint would take one",
            Self::LeftToRetry => "the rest is left to the retry above",
        })
    }
}

impl Exhausted {
    pub(crate) fn new(history: History, why: Why, outcome: Outcome, last: BoxError) -> Self {
        let History {
            made,
            sent,
            attempts,
        } = history;
        let failed = if made == 1 { "attempt" } else { "attempts" };
        let retry_after = match outcome.pushback() {
            Pushback::After(after) => Some(after),
            _ => None,
        };
        let refusal = match why {
            Why::LeftToRetry => undecided(&*last, sent),
            _ => Refusal::remote(Kind::AttemptsExhausted, sent),
        };
        let refusal = refusal
            .with_context(format!("{made} {failed} failed and {why}"))
            .with_retry_after(retry_after)
            .with_cause(last);
        Self {
            refusal,
            why,
            made,
            attempts,
        }
    }

    /// Why no further attempt was made.
    pub fn why(&self) -> Why {
        self.why
    }

    /// How many attempts were made.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// What became of each attempt, the last at the end; of very many only the latest are told.
    pub fn attempts(&self) -> &[FailedAttempt] {
        &self.attempts
    }

    /// The error of the last attempt.
    pub fn last(&self) -> &(dyn Error + Send + Sync + 'static) {
        self.refusal.cause().unwrap_or(&self.refusal)
    }
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.refusal.context())?;
        let first = self.made as usize - self.attempts.len() + 1;
        for (number, attempt) in (first..).zip(&self.attempts) {
            let separator = if number == first { ':' } else { ';' };
            write!(f, "{separator} {number}. {attempt}")?;
        }
        Ok(())
    }
}

impl Error for Exhausted {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.refusal)
    }
}

/// What `last` refuses with, so that whoever decides whether to go on judges it as if it had come alone.
fn undecided(last: &(dyn Error + 'static), sent: Sent) -> Refusal {
    match Refusal::of(last) {
        Some(last) if last.is_local() && sent == Sent::Maybe => {
            Refusal::local(last.kind()).maybe_sent()
        }
        Some(last) if last.is_local() => Refusal::local(last.kind()),
        Some(last) => Refusal::remote(last.kind(), sent),
        None => Refusal::remote(Kind::Transport, sent),
    }
}

/// What became of one attempt.
#[derive(Clone, Debug)]
pub struct FailedAttempt {
    endpoint: Option<Endpoint>,
    error: Box<str>,
}

impl FailedAttempt {
    /// Where it went, if its error says so ([`AtEndpoint`]).
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    /// What its error and the causes of that say.
    pub fn error(&self) -> &str {
        &self.error
    }
}

impl fmt::Display for FailedAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(endpoint) = &self.endpoint {
            write!(f, "{}: ", endpoint.id())?;
        }
        f.write_str(&self.error)
    }
}

/// The failed attempts of a call.
#[derive(Debug)]
pub(crate) struct History {
    made: u32,
    sent: Sent,
    attempts: Vec<FailedAttempt>,
}

/// More attempts than this only the latest are told of.
const TOLD: usize = 8;
/// What is longer is cut off: errors may contain what the endpoint says.
const LONGEST_TEXT: usize = 256;

impl Default for History {
    fn default() -> Self {
        Self {
            made: 0,
            sent: Sent::Never,
            attempts: Vec::new(),
        }
    }
}

impl History {
    /// How many attempts have failed.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    /// Notes an attempt that has failed, with an error or with a response.
    pub(crate) fn note(&mut self, outcome: Outcome, error: Option<&BoxError>) {
        self.made = self.made.saturating_add(1);
        if outcome.sent() == Sent::Maybe {
            self.sent = Sent::Maybe;
        }
        if self.attempts.len() == TOLD {
            self.attempts.remove(0);
        }
        self.attempts.push(match error {
            Some(error) => FailedAttempt {
                endpoint: AtEndpoint::of(&**error).map(|at| at.endpoint().clone()),
                error: error_text(&**error),
            },
            None => FailedAttempt {
                endpoint: None,
                error: response_text(outcome.class()).into(),
            },
        });
    }
}

fn response_text(class: Class) -> &'static str {
    match class {
        Class::Overload => "answered that it is overloaded",
        _ => "answered with a failure",
    }
}

/// What `error` and its causes say.
fn error_text(error: &(dyn Error + 'static)) -> Box<str> {
    let mut text = Bounded(String::new());
    let mut next = Some(error);
    while let Some(error) = next {
        // The endpoint is told beside the text.
        if !error.is::<AtEndpoint>() {
            let separator = if text.0.is_empty() { "" } else { ": " };
            if write!(text, "{separator}{error}").is_err() {
                break;
            }
        }
        next = error.source();
    }
    text.0.into()
}

/// Takes so much text and refuses more, so that nothing long is made in the first place.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LONGEST_TEXT - self.0.len().min(LONGEST_TEXT);
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let fits = (0..=room).rev().find(|at| text.is_char_boundary(*at));
        self.0.push_str(&text[..fits.unwrap_or(0)]);
        self.0.push('…');
        Err(fmt::Error)
    }
}

/// One attempt was given up because it took too long; the call may go on with another.
///
/// Its source is the [`Refusal`] (`deadline_exceeded`).
#[derive(Debug)]
pub struct AttemptTimeout {
    after: Duration,
    refusal: Refusal,
}

impl AttemptTimeout {
    pub(crate) fn new(after: Duration, sent: Sent) -> Self {
        Self {
            after,
            refusal: Refusal::remote(Kind::DeadlineExceeded, sent),
        }
    }

    /// How long it was waited for.
    pub fn after(&self) -> Duration {
        self.after
    }
}

impl fmt::Display for AttemptTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within the {:?} of one attempt", self.after)
    }
}

impl Error for AttemptTimeout {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.refusal)
    }
}

/// Whether `error` is the mesh's own last word, whatever a classifier says of it: its refusals (more attempts are more
/// of the same), and what was retried already (retries over retries multiply).
pub(crate) fn is_final(error: &(dyn Error + 'static)) -> bool {
    Refusal::of(error).is_some_and(|refusal| match refusal.kind() {
        Kind::AttemptsExhausted => true,
        Kind::DeadlineExceeded => false,
        _ => refusal.is_local(),
    })
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Endless;

    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            loop {
                f.write_str("é and so on, ")?;
            }
        }
    }

    impl Error for Endless {}

    fn exhausted(outcome: Outcome, errors: Vec<BoxError>) -> Exhausted {
        let mut history = History::default();
        let mut last = None;
        for error in errors {
            history.note(outcome, Some(&error));
            last = Some(error);
        }
        Exhausted::new(
            history,
            Why::BudgetEmpty,
            outcome,
            last.expect("at least one error"),
        )
    }

    #[test]
    fn it_tells_of_each_attempt_and_leads_to_the_last_error() {
        let one = Endpoint::new(([10, 0, 0, 1], 80).into()).with_id("orders-1");
        let refused = Refusal::remote(Kind::Connect, Sent::Never).with_cause("refused");
        let outcome = refused.outcome();
        let error = exhausted(
            outcome,
            vec![
                AtEndpoint::new(one.clone(), refused).into(),
                AttemptTimeout::new(Duration::from_millis(250), Sent::Maybe).into(),
            ],
        );
        assert_eq!(
            error.to_string(),
            "2 attempts failed and the retry budget is used up: \
             1. orders-1: cannot connect: refused; \
             2. no answer within the 250ms of one attempt: deadline exceeded"
        );
        assert_eq!(error.attempts()[0].endpoint(), Some(&one));
        assert_eq!((error.made(), error.why()), (2, Why::BudgetEmpty));
        assert!(error.last().is::<AttemptTimeout>());

        let refusal = Refusal::of(&error).unwrap();
        assert_eq!(refusal.kind(), Kind::AttemptsExhausted);
        assert!(!refusal.is_local());
        assert!(refusal.source().unwrap().is::<AttemptTimeout>());
    }

    #[test]
    fn it_was_never_sent_only_if_no_attempt_was() {
        let sent = |outcomes: &[Outcome]| {
            let mut history = History::default();
            for outcome in outcomes {
                history.note(*outcome, None);
            }
            let error = Exhausted::new(history, Why::Deadline, outcomes[0], "last".into());
            Refusal::of(&error).map(Refusal::sent)
        };
        let never = Outcome::failure().never_sent();
        assert_eq!(sent(&[never, never]), Some(Sent::Never));
        assert_eq!(sent(&[never, Outcome::failure()]), Some(Sent::Maybe));
        assert_eq!(sent(&[Outcome::overload(), never]), Some(Sent::Maybe));
    }

    #[test]
    fn what_the_endpoint_asked_for_is_passed_on() {
        let after = Duration::from_secs(600);
        let outcome = Outcome::overload().with_pushback(Pushback::After(after));
        let error = exhausted(outcome, vec!["busy".into()]);
        assert_eq!(Refusal::of(&error).unwrap().retry_after(), Some(after));
    }

    #[test]
    fn neither_many_attempts_nor_long_messages_use_much_memory() {
        let error = exhausted(
            Outcome::failure(),
            (0..10_000).map(|_| Endless.into()).collect(),
        );
        assert_eq!((error.made(), error.attempts().len()), (10_000, TOLD));
        assert!(
            error
                .attempts()
                .iter()
                .all(|a| a.error().len() <= LONGEST_TEXT + 3)
        );
        assert!(error.to_string().contains(": 9993. é and so on"));
        assert!(error.to_string().contains("; 10000. é and so on"));
    }

    #[test]
    fn the_mesh_s_own_refusals_are_final_whatever_a_classifier_says() {
        assert!(is_final(&Refusal::local(Kind::Overloaded)));
        assert!(is_final(&exhausted(Outcome::failure(), vec!["x".into()])));
        assert!(!is_final(&Refusal::remote(Kind::Overloaded, Sent::Maybe)));
        assert!(!is_final(&Refusal::local(Kind::DeadlineExceeded)));
        assert!(!is_final(&fmt::Error));
    }
}
