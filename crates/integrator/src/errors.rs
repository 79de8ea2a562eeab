//! What went wrong with the calls to a service: the errors themselves, not how many there are of what.

use std::{
    error::Error as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tower_mesh_core::{Instant, Kind};

use crate::error::Error;

/// The errors of one service by kind: the first, the last, how many, and what one of them said.
#[derive(Debug, Default)]
pub(crate) struct Errors(Mutex<Vec<Seen>>);

/// Errors of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// None: an error of the user's own service.
    pub(crate) kind: Option<Kind>,
    pub(crate) count: u64,
    pub(crate) first: Instant,
    pub(crate) last: Instant,
    pub(crate) sample: String,
    sampled: Instant,
}

/// A sample is this long at most, in bytes.
const LONGEST: usize = 500;

/// Writing one down costs more than failing: so often is enough.
const AGAIN: Duration = Duration::from_secs(1);

impl Errors {
    /// Notes an error. There are not many kinds, so this is bounded.
    pub(crate) fn note(&self, error: &Error, now: Instant) {
        let mut all = self.lock();
        let kind = error.kind();
        let Some(seen) = all.iter_mut().find(|seen| seen.kind == kind) else {
            all.push(Seen {
                kind,
                count: 1,
                first: now,
                last: now,
                sample: sample(error),
                sampled: now,
            });
            return;
        };
        seen.count += 1;
        seen.last = seen.last.max(now);
        if now.since(seen.sampled) >= AGAIN {
            seen.sample = sample(error);
            seen.sampled = now;
        }
    }

    /// All kinds there were, the latest first.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let mut all = self.lock().clone();
        all.sort_by_key(|seen| std::cmp::Reverse(seen.last));
        all
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `error` and its sources say, each once.
fn sample(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source().and_then(|error| error.source());
    while let Some(error) = source {
        let says = error.to_string();
        if !text.contains(&says) {
            text = format!("{text}: {says}");
        }
        source = error.source();
    }
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use tower_mesh_core::{Refusal, ServiceName};

    use super::*;

    const START: Instant = Instant::from_nanos(1 << 60);

    fn error(kind: Option<Kind>, says: &str) -> Error {
        let service = ServiceName::new("orders").unwrap();
        match kind {
            Some(kind) => {
                Error::refused(&service, Refusal::local(kind).with_context(says.to_owned()))
            }
            None => Error::new(&service, says.into()),
        }
    }

    #[test]
    fn each_kind_is_kept_with_its_first_its_last_and_a_sample_of_now_and_then() {
        let errors = Errors::default();
        let at = |ms| START + Duration::from_millis(ms);
        errors.note(&error(None, "first"), START);
        errors.note(&error(None, "too soon to be written down"), at(999));
        errors.note(&error(Some(Kind::Overloaded), "full"), at(1_500));
        let seen = errors.seen();
        assert_eq!(seen[0].kind, Some(Kind::Overloaded));
        let own = &seen[1];
        assert_eq!((own.kind, own.count), (None, 2));
        assert_eq!((own.first, own.last), (START, at(999)));
        assert_eq!(own.sample, "orders: first");
        errors.note(&error(None, "another"), at(2_000));
        assert_eq!(errors.seen()[0].sample, "orders: another");
    }

    #[test]
    fn a_sample_tells_the_whole_chain_and_has_an_end() {
        let cause = std::io::Error::other("connection reset");
        let refusal = Refusal::local(Kind::Transport).with_cause(Box::new(cause));
        let service = ServiceName::new("orders").unwrap();
        let told = sample(&Error::refused(&service, refusal));
        assert!(told.ends_with("connection reset"), "{told}");
        let endless = sample(&error(None, &"ü".repeat(1_000)));
        assert!(endless.len() <= LONGEST + '…'.len_utf8() && endless.ends_with("ü…"));
    }
}
