//! Consul's store of keys: values with revisions, leases as sessions.

mod pair;
mod session;
mod txn;
mod watch;

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tower_mesh_core::{
    BoxFuture, Key, KeyValue, KeyValueError, Lease, Prefix,
    kv::{Entry, Expect, KeyValueErrorKind, Listing, MAX_VALUE, Watch},
};

use self::{
    pair::Pair,
    txn::{Op, Refusal},
    watch::Watching,
};
use crate::{
    consul::Consul,
    error::{ConsulError, ErrorKind},
    request::{Answer, Request},
};

impl KeyValue for Consul {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>, KeyValueError>> {
        Box::pin(async move {
            let pair = self.pair(key).await.map_err(failed)?;
            Ok(pair.map(|pair| pair.entry(key.clone())))
        })
    }

    fn list<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Listing, KeyValueError>> {
        Box::pin(async move {
            let request = tree(prefix).flag("consistent");
            let answer = self.call(&request).await.map_err(failed)?;
            let (listing, _) = listing(answer, prefix).await.map_err(failed)?;
            Ok(listing)
        })
    }

    fn put<'a>(&'a self, key: &'a Key, value: Bytes) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        Box::pin(async move {
            check_size(key, &value)?;
            // A plain write would leave the key to the lease that it had.
            let ops = [Op::delete(key), Op::set(key, &value)];
            if txn::fits(&ops) {
                return match self.transact(&ops, write_on(key)).await.map_err(failed)? {
                    Ok(revision) => Ok(revision),
                    Err(refusal) => Err(odd(refusal)),
                };
            }
            self.put_large(key, value).await
        })
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool, KeyValueError>> {
        Box::pin(async move {
            let ops = [Op::get(key), Op::delete(key)];
            let done = self.transact(&ops, write_on(key)).await.map_err(failed)?;
            match done {
                Ok(_) => Ok(true),
                Err(refusal) if refusal.op == 0 => Ok(false),
                Err(refusal) => Err(odd(refusal)),
            }
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
            check_size(key, &value)?;
            let write = match lease {
                None => Op::set(key, &value),
                Some(lease) => Op::lock(key, &value, lease.id()),
            };
            let ops = match expect {
                Expect::Absent => vec![Op::check_absent(key), write],
                // Deleted within, so that the key leaves the lease that it had.
                Expect::Revision(revision) => {
                    vec![Op::check_revision(key, revision), Op::delete(key), write]
                }
            };
            if !txn::fits(&ops) {
                return self.cas_large(key, expect, value, lease).await;
            }
            let done = self.transact(&ops, write_on(key)).await.map_err(failed)?;
            match (done, lease) {
                (Ok(revision), _) => Ok(revision),
                (Err(refusal), _) if refusal.op == 0 => Err(self.conflict(key).await),
                (Err(refusal), Some(lease)) if refusal.is_of_session() => {
                    Err(KeyValueError::lease_gone(lease))
                }
                (Err(refusal), _) if refusal.is_of_lock_delay() => {
                    let message =
                        format!("key {key} cannot be had yet: its lock delay is not over");
                    Err(KeyValueError::unavailable(message))
                }
                (Err(refusal), _) => Err(odd(refusal)),
            }
        })
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease, KeyValueError>> {
        Box::pin(session::grant(self, ttl))
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Lease, KeyValueError>> {
        Box::pin(session::renew(self, lease))
    }

    fn revoke<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), KeyValueError>> {
        Box::pin(session::revoke(self, lease))
    }

    fn watch(&self, prefix: &Prefix, from: u64) -> Watch {
        Watching::start(self.clone(), prefix.clone(), from)
    }
}

impl Consul {
    async fn pair(&self, key: &Key) -> Result<Option<Pair>, ConsulError> {
        let request = on_key(Method::GET, key, format!("key:read on {key}")).flag("consistent");
        let answer = self.call(&request).await?;
        if answer.is_missing() {
            return Ok(None);
        }
        let pairs: Vec<Pair> = answer.json().await?;
        Ok(pairs.into_iter().next())
    }

    /// What a key that was not as expected is like.
    async fn conflict(&self, key: &Key) -> KeyValueError {
        match self.pair(key).await {
            Ok(found) => KeyValueError::conflict(key, found.map(|pair| pair.revision())),
            // That it was not as expected is known all the same.
            Err(_) => KeyValueError::new(
                KeyValueErrorKind::Conflict,
                format!("key {key} has changed"),
            ),
        }
    }

    /// A transaction takes less than the largest value, so such a one is written by itself.
    ///
    /// Others may see the moment between the deletion, which frees the key of its lease, and the write.
    async fn put_large(&self, key: &Key, value: Bytes) -> Result<u64, KeyValueError> {
        const TRIES: u32 = 8;
        for _ in 0..TRIES {
            let delete = on_key(Method::DELETE, key, write_on(key));
            self.call(&delete).await.map_err(failed)?;
            if let Some(revision) = self.write_large(key, 0, value.clone()).await? {
                return Ok(revision);
            }
        }
        Err(KeyValueError::unavailable(format!(
            "key {key} is written by others all the time"
        )))
    }

    async fn cas_large(
        &self,
        key: &Key,
        expect: Expect,
        value: Bytes,
        lease: Option<&Lease>,
    ) -> Result<u64, KeyValueError> {
        let refuse = |why: &str| {
            let message = format!("a value of {} bytes for key {key}: {why}", value.len());
            Err(KeyValueError::new(KeyValueErrorKind::Refused, message))
        };
        if lease.is_some() {
            return refuse("under a lease Consul takes about 390,000 bytes");
        }
        let index = match expect {
            Expect::Absent => 0,
            Expect::Revision(revision) => {
                let found = self.pair(key).await.map_err(failed)?;
                if found.is_some_and(|pair| pair.is_leased()) {
                    return refuse("it belongs to a lease, write it smaller or delete it first");
                }
                revision.max(1)
            }
        };
        match self.write_large(key, index, value).await? {
            Some(revision) => Ok(revision),
            None => Err(self.conflict(key).await),
        }
    }

    /// Writes if the key has the revision `index`, zero for none, and reads which one it has got.
    async fn write_large(
        &self,
        key: &Key,
        index: u64,
        value: Bytes,
    ) -> Result<Option<u64>, KeyValueError> {
        // A write does not say its revision. Its flags tell whether what is read is what was written.
        let flags = self.rng.next_u64() >> 1;
        let mut request = on_key(Method::PUT, key, write_on(key))
            .query("cas", index.to_string())
            .query("flags", flags.to_string());
        request.body = value;
        let written = self.call(&request).await.map_err(failed)?;
        let written: bool = written.json().await.map_err(failed)?;
        if !written {
            return Ok(None);
        }
        match self.pair(key).await.map_err(failed)? {
            Some(pair) if pair.flags() == flags => Ok(Some(pair.revision())),
            _ => Err(KeyValueError::unavailable(format!(
                "key {key} was written, and by somebody else at once"
            ))),
        }
    }
}

fn write_on(key: &Key) -> String {
    format!("key:write on {key}")
}

fn on_key(method: Method, key: &Key, needs: String) -> Request {
    let path: Vec<_> = std::iter::once("kv").chain(key.segments()).collect();
    Request::new(method, &path, needs)
}

/// All keys beneath `prefix`.
fn tree(prefix: &Prefix) -> Request {
    let segments = prefix.key().into_iter().flat_map(Key::segments);
    // An empty segment at the end is the slash that all of them have.
    let path: Vec<_> = std::iter::once("kv").chain(segments).chain([""]).collect();
    let needs = format!("key:read and key:list on {prefix}");
    Request::get(&path, needs).flag("recurse")
}

/// What is beneath `prefix`, and the index that Consul gives it.
async fn listing(answer: Answer, prefix: &Prefix) -> Result<(Listing, Option<u64>), ConsulError> {
    let index = answer.index;
    let pairs: Vec<Pair> = match answer.is_missing() {
        true => Vec::new(),
        false => answer.json().await?,
    };
    // Others may have keys that are none of ours, such as folders.
    let named = pairs.into_iter().filter_map(Pair::named);
    let mut entries: Vec<_> = named.filter(|entry| prefix.covers(&entry.key)).collect();
    entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let newest = entries.iter().map(|entry| entry.revision).max();
    let revision = index.unwrap_or(0).max(newest.unwrap_or(0));
    Ok((Listing { entries, revision }, index))
}

fn check_size(key: &Key, value: &Bytes) -> Result<(), KeyValueError> {
    match value.len() > MAX_VALUE {
        true => Err(KeyValueError::too_large(key, value.len())),
        false => Ok(()),
    }
}

/// Reads `body` as each of the answers that there are.
#[cfg(feature = "testing")]
pub(crate) fn read(body: &[u8]) {
    let pairs = crate::request::parse::<Vec<Pair>>(body).into_iter();
    pairs.flatten().for_each(|pair| drop(pair.named()));
    txn::read(body);
}

/// Consul's error as the store's.
fn failed(error: ConsulError) -> KeyValueError {
    let kind = match error.kind() {
        ErrorKind::Denied | ErrorKind::Refused | ErrorKind::TooLarge => KeyValueErrorKind::Refused,
        ErrorKind::Unavailable | ErrorKind::Malformed | ErrorKind::Untrusted(_) => {
            KeyValueErrorKind::Unavailable
        }
    };
    KeyValueError::new(kind, error.to_string()).caused_by(error)
}

/// A transaction failed for a reason that it should not have.
fn odd(refusal: Refusal) -> KeyValueError {
    let message = format!("the transaction was refused: {}", refusal.what);
    KeyValueError::new(KeyValueErrorKind::Refused, message)
}
