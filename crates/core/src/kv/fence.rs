//! What tells an old owner from a new one.

use std::cmp::Ordering;

use bytes::Bytes;

use super::{Expect, Key, KeyValue, KeyValueError, Lease};

/// Proof of having acquired a key: its revision when it was acquired.
///
/// A lease alone does not keep a late owner out: it may act on a belief that has just ended. So what it acts on is given
/// the token and refuses one that is older than the newest it has seen. Tokens of one key grow with each owner; those of
/// different keys do not compare.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FencingToken {
    key: Key,
    revision: u64,
}

impl FencingToken {
    /// A token that was passed on as its parts.
    pub const fn new(key: Key, revision: u64) -> Self {
        Self { key, revision }
    }

    /// Acquires `key` for as long as `lease` lives, writing `value` (who the owner is, say) to it.
    ///
    /// # Errors
    ///
    /// As [`KeyValue::cas`]: a [`Conflict`](super::KeyValueErrorKind::Conflict) means that somebody else has it.
    pub async fn acquire(
        store: &(impl KeyValue + ?Sized),
        key: &Key,
        value: Bytes,
        lease: &Lease,
    ) -> Result<Self, KeyValueError> {
        let revision = store.cas(key, Expect::Absent, value, Some(lease)).await?;
        Ok(Self::new(key.clone(), revision))
    }

    /// The key that was acquired.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Its revision then.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

impl PartialOrd for FencingToken {
    /// The newer owner's is greater; none for different keys.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.key == other.key).then(|| self.revision.cmp(&other.revision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_compare_within_a_key_only() {
        let token = |key, revision| FencingToken::new(Key::new(key).unwrap(), revision);
        assert!(token("a", 1) < token("a", 2));
        assert_eq!(token("a", 1).partial_cmp(&token("b", 2)), None);
    }
}
