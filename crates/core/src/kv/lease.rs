//! The right to keys for some time.

use std::{sync::Arc, time::Duration};

use crate::time::Instant;

/// A time for which keys are kept, as its holder may believe in it.
///
/// What it protects may be done before [`valid_until`](Self::valid_until), which is counted from when the grant or the
/// renewal was *sent*: the answer may have been on its way for long. Renew well before, and stop when it has passed,
/// even if the store cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    id: Arc<str>,
    ttl: Duration,
    valid_until: Instant,
}

impl Lease {
    /// A lease that the store has given `ttl`, in answer to what was sent at `sent`: for those who implement
    /// [`KeyValue`](super::KeyValue).
    pub fn new(id: impl Into<Arc<str>>, ttl: Duration, sent: Instant) -> Self {
        Self {
            id: id.into(),
            ttl,
            valid_until: sent + ttl,
        }
    }

    /// The same lease, for `ttl` from `sent`: what a renewal answers.
    #[must_use]
    pub fn renewed(&self, ttl: Duration, sent: Instant) -> Self {
        Self {
            id: Arc::clone(&self.id),
            ttl,
            valid_until: sent + ttl,
        }
    }

    /// The store's name for it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How long it lives without a renewal.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Until when its holder may believe in it, on the clock that the store was made with.
    pub fn valid_until(&self) -> Instant {
        self.valid_until
    }

    /// Whether its holder may still believe in it.
    pub fn is_valid(&self, now: Instant) -> bool {
        now < self.valid_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_believed_from_when_it_was_asked_for() {
        let (sent, ttl) = (Instant::from_nanos(1 << 60), Duration::from_secs(10));
        let lease = Lease::new("a", ttl, sent);
        assert_eq!(lease.valid_until(), sent + ttl);
        assert!(lease.is_valid(sent + Duration::from_millis(9_999)));
        assert!(!lease.is_valid(sent + ttl));
        let renewed = lease.renewed(2 * ttl, sent + ttl / 2);
        assert_eq!(
            (renewed.id(), renewed.valid_until()),
            ("a", sent + ttl / 2 + 2 * ttl)
        );
    }

    #[test]
    fn a_lease_for_ever_does_not_overflow() {
        let lease = Lease::new("a", Duration::MAX, Instant::from_nanos(1 << 60));
        assert_eq!(lease.valid_until(), Instant::NEVER);
    }
}
