//! The decisions of a store in memory: revisions, leases, and what a watch is told.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    time::Duration,
};

use bytes::Bytes;

use crate::{
    kv::{
        Entry, Event, Expect, Key, KeyValueError, KeyValueErrorKind, Lease, Listing, MAX_VALUE,
        Prefix,
    },
    time::Instant,
};

/// How many changes are remembered for watches; one that lags further behind is reset.
const HISTORY: usize = 1_024;
const MAX_KEYS: usize = 100_000;
const MAX_LEASES: usize = 100_000;

/// Keys, leases and the latest changes. Pure: it is told the time.
pub(super) struct Store {
    revision: u64,
    keys: BTreeMap<Key, Value>,
    leases: BTreeMap<u64, Term>,
    leases_granted: u64,
    /// What has changed, the oldest first; of what kind the change was is seen from `keys`.
    history: VecDeque<(u64, Key)>,
    /// The newest change that is no longer in `history`.
    forgotten: u64,
}

struct Value {
    bytes: Bytes,
    revision: u64,
    lease: Option<u64>,
}

/// The life of a lease.
struct Term {
    expires: Instant,
    keys: BTreeSet<Key>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            revision: 1, // A watch from 0 begins with a reset, one from the list of an empty store does not.
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            leases_granted: 0,
            history: VecDeque::new(),
            forgotten: 0,
        }
    }
}

impl Store {
    /// Counts the writes.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn get(&self, key: &Key) -> Option<Entry> {
        let (key, value) = self.keys.get_key_value(key)?;
        Some(entry(key, value))
    }

    pub(super) fn list(&self, prefix: &Prefix) -> Listing {
        let start = prefix.to_string();
        let from = (Bound::Included(start.as_str()), Bound::Unbounded);
        let beneath = self.keys.range::<str, _>(from);
        let beneath = beneath.take_while(|(key, _)| prefix.covers(key));
        Listing {
            entries: beneath.map(|(key, value)| entry(key, value)).collect(),
            revision: self.revision,
        }
    }

    pub(super) fn put(&mut self, key: &Key, bytes: Bytes) -> Result<u64, KeyValueError> {
        self.write(key, bytes, None)
    }

    pub(super) fn cas(
        &mut self,
        key: &Key,
        expect: Expect,
        bytes: Bytes,
        lease: Option<&Lease>,
    ) -> Result<u64, KeyValueError> {
        let lease = match lease {
            Some(lease) => Some(
                self.number(lease)
                    .ok_or_else(|| KeyValueError::lease_gone(lease))?,
            ),
            None => None,
        };
        let found = self.keys.get(key).map(|value| value.revision);
        let expected = match expect {
            Expect::Absent => None,
            Expect::Revision(revision) => Some(revision),
        };
        if found != expected {
            return Err(KeyValueError::conflict(key, found));
        }
        self.write(key, bytes, lease)
    }

    fn write(&mut self, key: &Key, bytes: Bytes, lease: Option<u64>) -> Result<u64, KeyValueError> {
        if bytes.len() > MAX_VALUE {
            return Err(KeyValueError::too_large(key, bytes.len()));
        }
        if self.keys.len() >= MAX_KEYS && !self.keys.contains_key(key) {
            return Err(full("keys", MAX_KEYS));
        }
        let revision = self.change(key);
        let value = Value {
            bytes,
            revision,
            lease,
        };
        let old = self.keys.insert(key.clone(), value);
        self.detach(key, old.and_then(|old| old.lease));
        if let Some(term) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
            term.keys.insert(key.clone());
        }
        Ok(revision)
    }

    pub(super) fn delete(&mut self, key: &Key) -> bool {
        let Some(old) = self.keys.remove(key) else {
            return false;
        };
        self.detach(key, old.lease);
        self.change(key);
        true
    }

    fn detach(&mut self, key: &Key, lease: Option<u64>) {
        if let Some(term) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
            term.keys.remove(key);
        }
    }

    /// Notes that `key` changes; the revision of the change.
    fn change(&mut self, key: &Key) -> u64 {
        self.revision += 1;
        self.history.push_back((self.revision, key.clone()));
        if self.history.len() > HISTORY
            && let Some((revision, _)) = self.history.pop_front()
        {
            self.forgotten = revision;
        }
        self.revision
    }

    /// Grants a lease; its number.
    pub(super) fn grant(&mut self, ttl: Duration, now: Instant) -> Result<u64, KeyValueError> {
        if ttl.is_zero() {
            let message = "a lease of no time has ended at once: grant it a ttl";
            return Err(KeyValueError::new(KeyValueErrorKind::Refused, message));
        }
        if self.leases.len() >= MAX_LEASES {
            return Err(full("leases", MAX_LEASES));
        }
        self.leases_granted += 1;
        let term = Term {
            expires: now + ttl,
            keys: BTreeSet::new(),
        };
        self.leases.insert(self.leases_granted, term);
        Ok(self.leases_granted)
    }

    pub(super) fn renew(&mut self, lease: &Lease, now: Instant) -> Result<(), KeyValueError> {
        let number = self.number(lease);
        match number.and_then(|number| self.leases.get_mut(&number)) {
            Some(term) => {
                term.expires = now + lease.ttl();
                Ok(())
            }
            None => Err(KeyValueError::lease_gone(lease)),
        }
    }

    pub(super) fn revoke(&mut self, lease: &Lease) {
        if let Some(number) = self.number(lease) {
            self.end(number);
        }
    }

    /// The number of a lease that lives.
    fn number(&self, lease: &Lease) -> Option<u64> {
        let number = lease.id().parse().ok()?;
        self.leases.contains_key(&number).then_some(number)
    }

    fn end(&mut self, lease: u64) {
        let term = self.leases.remove(&lease);
        for key in term.into_iter().flat_map(|term| term.keys) {
            self.keys.remove(&key);
            self.change(&key);
        }
    }

    /// Ends the leases whose time has passed, the earliest first.
    pub(super) fn expire(&mut self, now: Instant) {
        let over = self.leases.iter().filter(|(_, term)| now >= term.expires);
        let mut over: Vec<_> = over.map(|(lease, term)| (term.expires, *lease)).collect();
        over.sort_unstable();
        over.into_iter().for_each(|(_, lease)| self.end(lease));
    }

    /// When the next lease ends that holds keys beneath `prefix`, if no renewal comes.
    pub(super) fn next_expiry(&self, prefix: &Prefix) -> Option<Instant> {
        let holds = |term: &&Term| term.keys.iter().any(|key| prefix.covers(key));
        let next = self
            .leases
            .values()
            .filter(holds)
            .map(|term| term.expires)
            .min()?;
        (next != Instant::NEVER).then_some(next)
    }

    /// What has happened beneath `prefix` after revision `from`: at most one event for each key, in order.
    pub(super) fn since(&self, prefix: &Prefix, from: u64) -> Vec<Event> {
        if from == 0 || from < self.forgotten || from > self.revision {
            return vec![Event::Reset(self.list(prefix))];
        }
        let new = self
            .history
            .partition_point(|(revision, _)| *revision <= from);
        let changes = self
            .history
            .range(new..)
            .filter(|(_, key)| prefix.covers(key));
        let last: BTreeMap<_, _> = changes.map(|(revision, key)| (key, *revision)).collect();
        let mut events: Vec<_> = last.into_iter().collect();
        events.sort_unstable_by_key(|(_, revision)| *revision);
        let event = |(key, revision): (&Key, u64)| match self.get(key) {
            Some(entry) => Event::Put(entry),
            None => Event::Delete {
                key: key.clone(),
                revision,
            },
        };
        events.into_iter().map(event).collect()
    }
}

fn entry(key: &Key, value: &Value) -> Entry {
    Entry {
        key: key.clone(),
        value: value.bytes.clone(),
        revision: value.revision,
    }
}

fn full(what: &str, most: usize) -> KeyValueError {
    let message = format!("the store holds {most} {what}: delete some first");
    KeyValueError::new(KeyValueErrorKind::Refused, message)
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1 << 60);

    fn key(key: impl std::fmt::Display) -> Key {
        Key::new(&key.to_string()).unwrap()
    }

    fn put(store: &mut Store, name: &str) -> u64 {
        store.put(&key(name), Bytes::new()).unwrap()
    }

    #[test]
    fn a_watch_that_lags_behind_the_history_is_reset() {
        let mut store = Store::default();
        let first = put(&mut store, "a");
        for _ in 0..HISTORY {
            put(&mut store, "b");
        }
        assert_eq!(
            store.since(&Prefix::all(), first).len(),
            1,
            "all of b as one"
        );
        put(&mut store, "b");
        let events = store.since(&Prefix::all(), first);
        assert!(matches!(&events[..], [Event::Reset(all)] if all.entries.len() == 2));
        assert_eq!(store.history.len(), HISTORY);
    }

    #[test]
    fn a_revision_that_the_store_has_not_reached_is_reset() {
        let mut store = Store::default();
        let now = put(&mut store, "a");
        assert_eq!(store.since(&Prefix::all(), now), []);
        assert!(matches!(
            store.since(&Prefix::all(), now + 1)[..],
            [Event::Reset(_)]
        ));
    }

    #[test]
    fn too_much_is_refused() {
        let mut store = Store::default();
        let kind = |error: KeyValueError| error.kind();
        let large = Bytes::from(vec![0; MAX_VALUE + 1]);
        assert_eq!(
            store.put(&key("a"), large.clone()).map_err(kind),
            Err(KeyValueErrorKind::Refused)
        );
        assert!(store.put(&key("a"), large.slice(1..)).is_ok());
        for i in 1..MAX_KEYS {
            put(&mut store, &i.to_string());
        }
        assert_eq!(
            store.put(&key("b"), Bytes::new()).map_err(kind),
            Err(KeyValueErrorKind::Refused)
        );
        assert!(store.put(&key("a"), Bytes::new()).is_ok());
        assert!(store.grant(Duration::ZERO, NOW).is_err());
    }
}
