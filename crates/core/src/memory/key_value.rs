//! A key-value store in this process.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::watch;

use super::{store::Store, watching::Watching};
use crate::{
    kv::{Entry, Expect, Key, KeyValue, KeyValueError, Lease, Listing, Prefix, Watch},
    register::BoxFuture,
    time::{Clock, Instant},
};

/// A key-value store in this process, with all that [`KeyValue`] promises.
///
/// - A lease ends when its time has passed on the store's clock; watches carry the timer for it, and every call looks
///   first.
/// - Watches are told of the latest value of each key; the 1,024 last changes are remembered, who lags further behind
///   is reset.
/// - It takes 100,000 keys and 100,000 leases, and refuses more.
///
/// # Clone
///
/// A clone is the same store.
#[derive(Clone)]
pub struct MemoryKeyValue(Arc<Shared>);

pub(super) struct Shared {
    pub(super) clock: Clock,
    store: Mutex<Store>,
    /// The revision of the store, for those who watch.
    pub(super) changes: watch::Sender<u64>,
}

impl MemoryKeyValue {
    /// An empty store on tokio's clock.
    pub fn new() -> Self {
        Self::with_clock(Clock::default())
    }

    /// An empty store that measures leases with `clock`.
    pub fn with_clock(clock: Clock) -> Self {
        Self(Arc::new(Shared {
            clock,
            store: Mutex::default(),
            changes: watch::Sender::new(0),
        }))
    }

    /// A future that does `act` when it is first polled.
    fn at_once<'a, T: Send + 'a>(
        &'a self,
        act: impl FnOnce(&mut Store, Instant) -> T + Send + 'a,
    ) -> BoxFuture<'a, T> {
        Box::pin(async move { self.0.act(act) })
    }
}

impl Shared {
    /// Ends the leases whose time has passed, acts, and wakes those who watch if that changed anything.
    pub(super) fn act<T>(&self, act: impl FnOnce(&mut Store, Instant) -> T) -> T {
        let now = self.clock.now();
        let (out, revision) = {
            let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
            store.expire(now);
            (act(&mut store, now), store.revision())
        };
        // Outside the lock: a waker is anybody's code. So two may come here in either order, and the later one counts.
        self.changes.send_if_modified(|told| {
            let newer = revision > *told;
            *told = revision.max(*told);
            newer
        });
        out
    }
}

impl KeyValue for MemoryKeyValue {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>, KeyValueError>> {
        self.at_once(|store, _| Ok(store.get(key)))
    }

    fn list<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Listing, KeyValueError>> {
        self.at_once(|store, _| Ok(store.list(prefix)))
    }

    fn put<'a>(&'a self, key: &'a Key, value: Bytes) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        self.at_once(|store, _| store.put(key, value))
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool, KeyValueError>> {
        self.at_once(|store, _| Ok(store.delete(key)))
    }

    fn cas<'a>(
        &'a self,
        key: &'a Key,
        expect: Expect,
        value: Bytes,
        lease: Option<&'a Lease>,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        self.at_once(move |store, _| store.cas(key, expect, value, lease))
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease, KeyValueError>> {
        self.at_once(move |store, now| {
            let number = store.grant(ttl, now)?;
            Ok(Lease::new(number.to_string(), ttl, now))
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Lease, KeyValueError>> {
        self.at_once(|store, now| {
            store.renew(lease, now)?;
            Ok(lease.renewed(lease.ttl(), now))
        })
    }

    fn revoke<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), KeyValueError>> {
        self.at_once(|store, _| {
            store.revoke(lease);
            Ok(())
        })
    }

    fn watch(&self, prefix: &Prefix, from: u64) -> Watch {
        Watching::start(Arc::clone(&self.0), prefix.clone(), from)
    }
}

impl Default for MemoryKeyValue {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryKeyValue {
    /// Values may be secret, so none is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKeyValue").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_core::Stream;
    use tokio_test::{assert_pending, task};

    use super::*;
    use crate::kv::{Event, FencingToken};

    const SECOND: Duration = Duration::from_secs(1);

    fn done<T>(future: impl Future<Output = T>) -> T {
        match task::spawn(future).poll() {
            Poll::Ready(out) => out,
            Poll::Pending => panic!("nothing in memory waits"),
        }
    }

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    fn next(watch: &mut task::Spawn<Watch>) -> Event {
        match watch.enter(|cx, watch| watch.poll_next(cx)) {
            Poll::Ready(Some(Ok(event))) => event,
            other => panic!("expected an event, found {other:?}"),
        }
    }

    fn nothing(watch: &mut task::Spawn<Watch>) {
        assert_pending!(watch.enter(|cx, watch| watch.poll_next(cx)));
    }

    #[test]
    fn a_watch_is_woken_by_the_end_of_a_lease_that_nobody_else_looks_at() {
        let (clock, handle) = Clock::manual();
        let store = MemoryKeyValue::with_clock(clock);
        let mut watch = task::spawn(store.watch(&Prefix::new("owners").unwrap(), 0));
        assert!(matches!(next(&mut watch), Event::Reset(all) if all.entries.is_empty()));
        nothing(&mut watch);

        let lease = done(store.grant(10 * SECOND)).unwrap();
        let token = done(FencingToken::acquire(
            &store,
            &key("owners/7"),
            "me".into(),
            &lease,
        ))
        .unwrap();
        assert!(watch.is_woken());
        assert!(
            matches!(next(&mut watch), Event::Put(entry) if entry.revision == token.revision())
        );
        nothing(&mut watch);
        assert_eq!(handle.next_timer(), Some(lease.valid_until()));

        handle.advance(9 * SECOND);
        done(store.renew(&lease)).unwrap();
        handle.advance(9 * SECOND);
        nothing(&mut watch); // Its timer fired, and found the lease renewed.
        handle.advance(SECOND);
        assert!(watch.is_woken());
        assert!(
            matches!(next(&mut watch), Event::Delete { revision, .. } if revision > token.revision())
        );
        nothing(&mut watch);
        assert_eq!(handle.timers(), 0);
    }

    #[test]
    fn a_change_elsewhere_tells_a_watch_nothing() {
        let (clock, _) = Clock::manual();
        let store = MemoryKeyValue::with_clock(clock);
        let from = done(store.put(&key("a/1"), Bytes::new())).unwrap();
        let mut watch = task::spawn(store.watch(&Prefix::new("a").unwrap(), from));
        nothing(&mut watch);
        done(store.put(&key("b/1"), Bytes::new())).unwrap();
        nothing(&mut watch);
        assert!(done(store.delete(&key("a/1"))).unwrap());
        assert!(matches!(next(&mut watch), Event::Delete { .. }));
        nothing(&mut watch);
    }
}
