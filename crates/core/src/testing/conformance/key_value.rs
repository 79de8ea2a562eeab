//! The rules of [`KeyValue`](crate::KeyValue): values, revisions and swaps.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;

use super::{BoxFuture, Finding, KeyValueHarness, ensure, leases, watches, within};
use crate::{
    kv::{
        Entry, Expect, Key, KeyValue, KeyValueError, KeyValueErrorKind, Lease, Listing, MAX_VALUE,
        Prefix, Watch,
    },
    testing::violations::{Findings, Violations},
};

/// Checks a store against the rules of [`KeyValue`](crate::KeyValue).
///
/// # Errors
///
/// [`Violations`] lists the rules that were broken.
pub async fn key_value(harness: &impl KeyValueHarness) -> Result<(), Violations> {
    let at = |name| At::new(harness, name);
    let mut found = Findings::default();
    found.note("a value is read as it was written", read(&at("read")).await);
    found.note(
        "revisions of a key only grow",
        revisions(&at("revisions")).await,
    );
    found.note("a swap needs what it expects", swap(&at("swap")).await);
    found.note("of swaps that race one wins", race(&at("race")).await);
    found.note(
        "a list is what lies beneath a prefix",
        list(&at("list")).await,
    );
    found.note(
        "a deletion says whether there was something",
        delete(&at("delete")).await,
    );
    found.note("what is too large is refused", large(&at("large")).await);
    leases::rules(harness, &mut found).await;
    watches::rules(harness, &mut found).await;
    found.note("a broken connection is an error", cut(&at("cut")).await);
    found.result()
}

/// Where one rule is tried: a part of the tree of its own.
pub(super) struct At<'a> {
    pub(super) h: &'a dyn KeyValueHarness,
    pub(super) store: Arc<dyn KeyValue>,
    pub(super) top: Key,
}

impl<'a> At<'a> {
    pub(super) fn new(h: &'a dyn KeyValueHarness, name: &str) -> Self {
        let top = Key::new(&format!("{}/{name}", h.word()));
        Self {
            h,
            store: h.store(),
            top: top.expect("the word of a harness is a key"),
        }
    }

    pub(super) fn key(&self, name: &str) -> Key {
        self.top.join(name).expect("the suite's names are keys")
    }

    pub(super) fn prefix(&self) -> Prefix {
        Prefix::from(self.top.clone())
    }

    /// What a call comes to, within the patience of the harness.
    pub(super) async fn wait<T>(
        &self,
        what: &str,
        call: BoxFuture<'_, Result<T, KeyValueError>>,
    ) -> Result<Result<T, KeyValueError>, String> {
        let patience = self.h.patience();
        let late = || format!("{what} takes longer than {patience:?}");
        within(self.h, patience, call).await.ok_or_else(late)
    }

    /// What a call that must succeed gives.
    async fn done<T>(
        &self,
        what: &str,
        call: BoxFuture<'_, Result<T, KeyValueError>>,
    ) -> Result<T, String> {
        let done = self.wait(what, call).await?;
        done.map_err(|error| format!("{what} failed: {error}"))
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<Entry>, String> {
        self.done("get", self.store.get(key)).await
    }

    pub(super) async fn put(&self, key: &Key, value: &'static str) -> Result<u64, String> {
        self.done("put", self.store.put(key, value.into())).await
    }

    pub(super) async fn delete(&self, key: &Key) -> Result<bool, String> {
        self.done("delete", self.store.delete(key)).await
    }

    pub(super) async fn cas(
        &self,
        key: &Key,
        expect: Expect,
        lease: Option<&Lease>,
    ) -> Result<Result<u64, KeyValueError>, String> {
        let swap = self.store.cas(key, expect, "swapped".into(), lease);
        self.wait("cas", swap).await
    }

    pub(super) async fn grant(&self) -> Result<Lease, String> {
        self.done("grant", self.store.grant(self.h.ttl())).await
    }

    /// Acquires a key that is not there.
    pub(super) async fn acquire(&self, key: &Key, lease: &Lease) -> Result<u64, String> {
        let acquired = self.cas(key, Expect::Absent, Some(lease)).await?;
        acquired.map_err(|error| format!("a free key could not be acquired: {error}"))
    }

    pub(super) async fn renew(&self, lease: &Lease) -> Result<Lease, String> {
        self.done("renew", self.store.renew(lease)).await
    }

    pub(super) async fn revoke(&self, lease: &Lease) -> Finding {
        self.done("revoke", self.store.revoke(lease)).await
    }

    pub(super) async fn list(&self) -> Result<Listing, String> {
        self.done("list", self.store.list(&self.prefix())).await
    }

    pub(super) fn watch(&self, from: u64) -> Watch {
        self.store.watch(&self.prefix(), from)
    }
}

/// A call must fail, and so.
pub(super) fn failed<T: std::fmt::Debug>(
    what: &str,
    kind: KeyValueErrorKind,
    call: Result<T, KeyValueError>,
) -> Finding {
    ensure(matches!(&call, Err(error) if error.kind() == kind), || {
        format!("{what} must fail as {kind:?}, it came to {call:?}")
    })
}

async fn read(at: &At<'_>) -> Finding {
    let key = at.key("a");
    let missing = at.get(&key).await?;
    ensure(missing.is_none(), || {
        format!("nothing was written, {missing:?} is read")
    })?;
    for value in [&b"text"[..], b"", b"\0\xff\n/"] {
        let value = Bytes::from_static(value);
        let put = at.store.put(&key, value.clone());
        let revision = at.done("put", put).await?;
        let expected = Entry {
            key: key.clone(),
            value,
            revision,
        };
        let found = at.get(&key).await?;
        ensure(found.as_ref() == Some(&expected), || {
            format!("{expected:?} was written, {found:?} is read")
        })?;
    }
    at.delete(&key).await.map(drop)
}

async fn revisions(at: &At<'_>) -> Finding {
    let key = at.key("a");
    let mut seen = vec![at.put(&key, "1").await?, at.put(&key, "1").await?];
    let swapped = at.cas(&key, Expect::Revision(seen[1]), None).await?;
    seen.push(
        swapped
            .map_err(|error| format!("the revision of a put is not that of its key: {error}"))?,
    );
    at.delete(&key).await?;
    seen.push(at.put(&key, "4").await?);
    at.delete(&key).await?;
    let afresh = at.cas(&key, Expect::Absent, None).await?;
    seen.push(afresh.map_err(|error| format!("a deleted key could not be written: {error}"))?);
    at.delete(&key).await?;
    ensure(seen.is_sorted_by(|a, b| a < b), || {
        format!("put twice, swapped, deleted and put, deleted and swapped: {seen:?}")
    })
}

async fn swap(at: &At<'_>) -> Finding {
    let key = at.key("a");
    let conflict = |what, call| failed(what, KeyValueErrorKind::Conflict, call);
    let missing = at.cas(&key, Expect::Revision(1), None).await?;
    conflict("a swap of a key that is not there", missing)?;
    ensure(at.get(&key).await?.is_none(), || {
        "a failed swap has written".into()
    })?;

    let first = at.put(&key, "first").await?;
    conflict(
        "a swap for absent of a key that is there",
        at.cas(&key, Expect::Absent, None).await?,
    )?;
    let second = at.put(&key, "second").await?;
    conflict(
        "a swap of an old revision",
        at.cas(&key, Expect::Revision(first), None).await?,
    )?;
    let found = at.get(&key).await?.map(|entry| entry.value);
    ensure(found.as_deref() == Some(b"second"), || {
        format!("a failed swap has left {found:?}")
    })?;

    let swapped = at.cas(&key, Expect::Revision(second), None).await?;
    let third =
        swapped.map_err(|error| format!("a swap of the present revision failed: {error}"))?;
    let found = at.get(&key).await?;
    let right = found
        .as_ref()
        .is_some_and(|e| e.revision == third && e.value == "swapped");
    at.delete(&key).await?;
    ensure(right, || {
        format!("a swap that gave revision {third} has left {found:?}")
    })
}

async fn race(at: &At<'_>) -> Finding {
    let key = at.key("a");
    for round in 0..4 {
        let expect = match at.get(&key).await? {
            None => Expect::Absent,
            Some(entry) => Expect::Revision(entry.revision),
        };
        let racers = (0..8).map(|_| at.store.cas(&key, expect, "won".into(), None));
        let ends = within(at.h, at.h.patience(), join_all(racers)).await;
        let ends = ends.ok_or("swaps that race do not come to an end")?;
        let won = ends.iter().filter(|end| end.is_ok()).count();
        ensure(won == 1, || {
            format!("in round {round} {won} of 8 have won: {ends:?}")
        })?;
        for lost in ends.into_iter().filter(Result::is_err) {
            failed("a swap that lost", KeyValueErrorKind::Conflict, lost)?;
        }
    }
    at.delete(&key).await.map(drop)
}

async fn list(at: &At<'_>) -> Finding {
    let names = ["b", "a", "a/x", "a-b/x", "a.b"];
    let mut keys = names.map(|name| at.key(name));
    for key in &keys {
        at.put(key, "listed").await?;
    }
    keys.sort_unstable();
    let all = at.list().await?;
    let beneath = Prefix::from(at.key("a"));
    let few = at.done("list", at.store.list(&beneath)).await?;
    let tree = at.done("list", at.store.list(&Prefix::all())).await?;
    for key in &keys {
        at.delete(key).await?;
    }
    let of = |entries: &[Entry]| entries.iter().map(|e| e.key.clone()).collect::<Vec<_>>();
    ensure(of(&all.entries) == keys, || {
        format!("{:?} were written, {:?} are listed", keys, of(&all.entries))
    })?;
    ensure(of(&few.entries) == [at.key("a/x")], || {
        format!("beneath {beneath}: {:?}", of(&few.entries))
    })?;
    let rest = of(&tree.entries);
    ensure(keys.iter().all(|key| rest.contains(key)), || {
        format!("of the whole tree it lists {rest:?}")
    })?;
    let newest = all.entries.iter().map(|e| e.revision).max();
    ensure(newest <= Some(all.revision), || {
        format!(
            "the list is of revision {}, but holds {newest:?}",
            all.revision
        )
    })
}

async fn delete(at: &At<'_>) -> Finding {
    let key = at.key("a");
    let nothing = at.delete(&key).await?;
    at.put(&key, "gone").await?;
    let something = at.delete(&key).await?;
    let after = at.get(&key).await?;
    ensure(!nothing && something, || {
        format!("of a missing key it says {nothing}, of one that is there {something}")
    })?;
    ensure(after.is_none(), || {
        format!("after its deletion a key holds {after:?}")
    })
}

async fn large(at: &At<'_>) -> Finding {
    let key = at.key("a");
    let bytes = Bytes::from(vec![b'x'; MAX_VALUE + 1]);
    let refused = at.wait("put", at.store.put(&key, bytes.clone())).await?;
    failed(
        "a put of more than the largest value",
        KeyValueErrorKind::Refused,
        refused,
    )?;
    let largest = at.store.put(&key, bytes.slice(1..));
    at.done("a put of the largest value", largest).await?;
    let len = at.get(&key).await?.map(|entry| entry.value.len());
    at.delete(&key).await?;
    ensure(len == Some(MAX_VALUE), || {
        format!("{len:?} bytes are left of {MAX_VALUE}")
    })
}

async fn cut(at: &At<'_>) -> Finding {
    let key = at.key("a");
    at.put(&key, "before").await?;
    let mut watch = watches::Watched::start(at, 0);
    watch.until(at, &[(&key, "before")]).await?;
    if at.h.cut().await {
        let get = at
            .wait("get without a connection", at.store.get(&key))
            .await;
        let put = at
            .wait(
                "put without a connection",
                at.store.put(&key, "lost".into()),
            )
            .await;
        at.h.mend().await;
        failed(
            "a get without a connection",
            KeyValueErrorKind::Unavailable,
            get?,
        )?;
        failed(
            "a put without a connection",
            KeyValueErrorKind::Unavailable,
            put?,
        )?;
        at.put(&key, "after").await?;
        watch.until(at, &[(&key, "after")]).await?;
    }
    at.delete(&key).await.map(drop)
}
