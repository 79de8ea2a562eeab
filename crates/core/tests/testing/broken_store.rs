//! The store in memory behind a connection, and with a fault of choice.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, future};
use tower_mesh_core::{
    BoxFuture, Clock, Key, KeyValue, KeyValueError, Lease, ManualClock, MemoryKeyValue, Prefix,
    kv::{Entry, Event, Expect, Listing, Watch},
    testing::conformance::{Harness, KeyValueHarness},
};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    CutsValuesAtZero,
    CountsRevisionsPerKey,
    SwapsBlindly,
    ReadsThenWrites,
    CallsEveryErrorAConflict,
    ListsByText,
    DeletesSilently,
    TakesEverything,
    CountsFromTheAnswer,
    EndsLeasesEarly,
    NeverEndsLeases,
    KeepsWhatIsRevoked,
    KeepsTheFirstLease,
    ReusesTokens,
    GrantsNothing,
    BeginsWithPuts,
    ForgetsToGoOn,
    MissesDeletions,
    WatchesEverything,
    RunsBackwards,
    TrustsAnyRevision,
    HangsWhenCut,
}

/// The store in memory behind a slow connection that can be cut, and with one fault.
#[derive(Clone)]
pub(crate) struct Store {
    memory: MemoryKeyValue,
    clock: Clock,
    handle: ManualClock,
    cut: Arc<AtomicBool>,
    lag: Arc<AtomicU64>,
    /// What faults remember: of each key, how often it was written, and its first lease.
    writes: Arc<Mutex<HashMap<Key, u64>>>,
    leases: Arc<Mutex<HashMap<Key, Lease>>>,
    fault: Fault,
}

pub(crate) fn store(fault: Fault) -> Store {
    let (clock, handle) = Clock::manual();
    Store {
        memory: MemoryKeyValue::with_clock(clock.clone()),
        clock,
        handle,
        cut: Arc::default(),
        lag: Arc::default(),
        writes: Arc::default(),
        leases: Arc::default(),
        fault,
    }
}

impl Store {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// What a call comes to through this connection: it is sent, done, and then answered.
    async fn send<T>(
        &self,
        call: impl Future<Output = Result<T, KeyValueError>>,
    ) -> Result<T, KeyValueError> {
        if self.cut.load(Ordering::Relaxed) {
            if self.is(Fault::HangsWhenCut) {
                future::pending::<()>().await;
            }
            return Err(KeyValueError::unavailable("the connection is lost"));
        }
        let done = call.await;
        let lag = Duration::from_nanos(self.lag.load(Ordering::Relaxed));
        self.handle.advance(lag);
        done
    }

    fn revision(&self, key: &Key, revision: u64) -> u64 {
        if !self.is(Fault::CountsRevisionsPerKey) {
            return revision;
        }
        // Which begin again when the key is deleted.
        let mut writes = self.writes.lock().unwrap();
        let count = writes.entry(key.clone()).or_default();
        *count += 1;
        *count
    }
}

impl KeyValue for Store {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>, KeyValueError>> {
        Box::pin(async move {
            let mut found = self.send(self.memory.get(key)).await?;
            if let Some(entry) = &mut found
                && self.is(Fault::CutsValuesAtZero)
            {
                let end = entry.value.iter().position(|byte| *byte == 0);
                entry.value.truncate(end.unwrap_or(entry.value.len()));
            }
            Ok(found)
        })
    }

    fn list<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Listing, KeyValueError>> {
        Box::pin(async move {
            if !self.is(Fault::ListsByText) {
                return self.send(self.memory.list(prefix)).await;
            }
            let mut all = self.send(self.memory.list(&Prefix::all())).await?;
            let text = prefix.key().map_or("", Key::as_str);
            all.entries
                .retain(|entry| entry.key.as_str().starts_with(text));
            Ok(all)
        })
    }

    fn put<'a>(&'a self, key: &'a Key, value: Bytes) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        Box::pin(async move {
            let value = match self.fault {
                Fault::TakesEverything => value.slice(..value.len().min(1_000)),
                _ => value,
            };
            let lease = self.leases.lock().unwrap().get(key).cloned();
            if let (Fault::KeepsTheFirstLease, Some(lease)) = (self.fault, lease) {
                let found = self.memory.get(key).await?.map(|entry| entry.revision);
                let expect = found.map_or(Expect::Absent, Expect::Revision);
                return self.memory.cas(key, expect, value, Some(&lease)).await;
            }
            let revision = self.send(self.memory.put(key, value)).await?;
            Ok(self.revision(key, revision))
        })
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool, KeyValueError>> {
        Box::pin(async move {
            let deleted = self.send(self.memory.delete(key)).await?;
            self.writes.lock().unwrap().remove(key);
            Ok(deleted || self.is(Fault::DeletesSilently))
        })
    }

    fn cas<'a>(
        &'a self,
        key: &'a Key,
        expect: Expect,
        value: Bytes,
        lease: Option<&'a Lease>,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        Box::pin(async move {
            match self.fault {
                Fault::SwapsBlindly => return self.memory.put(key, value).await,
                Fault::ReadsThenWrites => {
                    let found = self.memory.get(key).await?.map(|entry| entry.revision);
                    yield_now().await;
                    let expected = match expect {
                        Expect::Absent => None,
                        Expect::Revision(revision) => Some(revision),
                    };
                    return if found == expected {
                        self.memory.put(key, value).await
                    } else {
                        Err(KeyValueError::conflict(key, found))
                    };
                }
                Fault::CallsEveryErrorAConflict => {
                    let swapped = self.memory.cas(key, expect, value, lease).await;
                    return swapped.map_err(|_| KeyValueError::conflict(key, None));
                }
                Fault::CountsRevisionsPerKey => {
                    let revision = self.memory.put(key, value).await?;
                    return Ok(self.revision(key, revision));
                }
                Fault::ReusesTokens => {
                    return self.memory.cas(key, expect, value, lease).await.map(|_| 7);
                }
                _ => {}
            }
            if let Some(lease) = lease {
                let mut leases = self.leases.lock().unwrap();
                leases.entry(key.clone()).or_insert_with(|| lease.clone());
            }
            self.send(self.memory.cas(key, expect, value, lease)).await
        })
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease, KeyValueError>> {
        Box::pin(async move {
            let real = match self.fault {
                Fault::EndsLeasesEarly => ttl / 2,
                Fault::NeverEndsLeases => ttl * 1_000,
                Fault::GrantsNothing => ttl.max(Duration::from_nanos(1)),
                _ => ttl,
            };
            let sent = self.clock.now();
            let lease = self.send(self.memory.grant(real)).await?;
            Ok(match self.fault {
                Fault::CountsFromTheAnswer => Lease::new(lease.id(), ttl, self.clock.now()),
                _ => Lease::new(lease.id(), ttl, sent),
            })
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Lease, KeyValueError>> {
        Box::pin(async move {
            let renewed = self.send(self.memory.renew(lease)).await?;
            Ok(match self.fault {
                Fault::CountsFromTheAnswer => lease.renewed(lease.ttl(), self.clock.now()),
                _ => renewed,
            })
        })
    }

    fn revoke<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), KeyValueError>> {
        Box::pin(async move {
            if self.is(Fault::KeepsWhatIsRevoked) {
                return Ok(());
            }
            self.send(self.memory.revoke(lease)).await
        })
    }

    fn watch(&self, prefix: &Prefix, from: u64) -> Watch {
        let this = self.clone();
        let spoil = move |event: Result<Event, _>| {
            let events = event.map_or_else(|error| vec![Err(error)], |event| this.spoil(event));
            futures_util::stream::iter(events)
        };
        let from = match self.fault {
            Fault::ForgetsToGoOn if from > 0 => return Box::pin(futures_util::stream::pending()),
            Fault::TrustsAnyRevision if from > 1_000_000 => {
                return Box::pin(self.memory.watch(prefix, 0).skip(1));
            }
            _ => from,
        };
        let prefix = match self.fault {
            Fault::WatchesEverything => &Prefix::all(),
            _ => prefix,
        };
        Box::pin(self.memory.watch(prefix, from).flat_map(spoil))
    }
}

impl Store {
    fn spoil(&self, event: Event) -> Vec<Result<Event, KeyValueError>> {
        match (self.fault, event) {
            (Fault::BeginsWithPuts, Event::Reset(all)) => all
                .entries
                .into_iter()
                .map(|entry| Ok(Event::Put(entry)))
                .collect(),
            (Fault::MissesDeletions, Event::Delete { .. }) => vec![],
            (Fault::RunsBackwards, Event::Put(entry)) => {
                let older = Entry {
                    revision: entry.revision - 1,
                    ..entry.clone()
                };
                vec![Ok(Event::Put(entry)), Ok(Event::Put(older))]
            }
            (_, event) => vec![Ok(event)],
        }
    }
}

async fn yield_now() {
    let mut yielded = false;
    future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

impl Harness for Store {
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        self.handle.advance(time);
        Box::pin(future::ready(()))
    }

    fn cut(&self) -> BoxFuture<'_, bool> {
        self.cut.store(true, Ordering::Relaxed);
        Box::pin(future::ready(true))
    }

    fn mend(&self) -> BoxFuture<'_, ()> {
        self.cut.store(false, Ordering::Relaxed);
        Box::pin(future::ready(()))
    }

    fn slow_down(&self, time: Duration) -> bool {
        self.lag.store(time.as_nanos() as u64, Ordering::Relaxed);
        true
    }
}

impl KeyValueHarness for Store {
    fn store(&self) -> Arc<dyn KeyValue> {
        Arc::new(self.clone())
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn grace(&self) -> Duration {
        Duration::ZERO
    }
}
