//! What a store offers to those who share small, precious state: who owns a partition, which configuration holds.
//!
//! A [`KeyValue`] gives every value a revision, swaps by comparing revisions, ties keys to [leases](Lease) and reports
//! changes. The public conformance suite (feature `testing`) tells whether an implementation keeps to what is said here;
//! [`MemoryKeyValue`](crate::MemoryKeyValue) is the one without a server.

mod error;
mod fence;
mod key;
mod lease;

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use futures_core::Stream;

pub use self::{
    error::{KeyValueError, KeyValueErrorKind},
    fence::FencingToken,
    key::{InvalidKey, Key, Prefix},
    lease::Lease,
};
use crate::register::BoxFuture;

/// The largest value that every store takes, 512 KiB: Consul's limit.
pub const MAX_VALUE: usize = 512 * 1024;

/// A store of small values under [keys](Key), with revisions, leases and watches.
///
/// - **Revisions.** Each write gives its key a new revision, larger than any the key has had, also before it was
///   deleted. Revisions of different keys compare only as far as a [`Listing`] and a watch relate them.
/// - **Leases.** A key belongs to the lease of the write that wrote it last, or to none, and is deleted when its lease
///   ends. A lease never ends before its holder's [`Lease::valid_until`]; it may live on longer.
/// - **Sizes.** A value of [`MAX_VALUE`] bytes is taken, a larger one refused.
///
/// # Cancel safety
///
/// A write whose future is dropped, or that fails as [`Unavailable`](KeyValueErrorKind::Unavailable), may have been
/// done. Reading the key tells.
pub trait KeyValue: Send + Sync + 'static {
    /// The value of `key`, if there is one.
    ///
    /// It is not older than what this store has answered to any call that had ended before.
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>, KeyValueError>>;

    /// All keys beneath `prefix` with their values, by key, as of one moment.
    fn list<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Listing, KeyValueError>>;

    /// Writes `value` whatever is there, outside any lease, and gives its revision.
    fn put<'a>(&'a self, key: &'a Key, value: Bytes) -> BoxFuture<'a, Result<u64, KeyValueError>>;

    /// Deletes `key`; whether it was there.
    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool, KeyValueError>>;

    /// Writes `value` if `key` is as expected, under `lease` or outside any, and gives its revision.
    ///
    /// # Errors
    ///
    /// [`Conflict`](KeyValueErrorKind::Conflict) if the key is not as expected,
    /// [`LeaseGone`](KeyValueErrorKind::LeaseGone) if the lease has ended. Nothing was written then.
    fn cas<'a>(
        &'a self,
        key: &'a Key,
        expect: Expect,
        value: Bytes,
        lease: Option<&'a Lease>,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>>;

    /// A new lease that lives for `ttl` and then has to be renewed. The store may give it a longer time.
    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<Lease, KeyValueError>>;

    /// The same lease, valid for its time from now: due well within the [`ttl`](Lease::ttl).
    ///
    /// # Errors
    ///
    /// [`LeaseGone`](KeyValueErrorKind::LeaseGone) if it has ended: its keys are deleted.
    fn renew<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Lease, KeyValueError>>;

    /// Ends a lease and deletes its keys; one that has ended already is no error.
    fn revoke<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), KeyValueError>>;

    /// Follows the keys beneath `prefix` from after revision `from`: one that a [`Listing`], a write or an earlier
    /// event has given, or 0 to begin with a [`Reset`](Event::Reset) that says what there is.
    ///
    /// Who applies the events in order has, some time after each change, what the store has. More is not promised: a
    /// value that was soon overwritten may be left out, an event may come twice. Of one key no older revision follows a
    /// newer one, except by a reset. When the store no longer knows what has happened since `from`, or has lost its
    /// state, it sends a reset.
    ///
    /// An error is not the end: the store goes on by itself, with a backoff of its own. Dropping the stream ends what it
    /// does.
    fn watch(&self, prefix: &Prefix, from: u64) -> Watch;
}

/// What happens beneath a prefix, see [`KeyValue::watch`].
pub type Watch = Pin<Box<dyn Stream<Item = Result<Event, KeyValueError>> + Send>>;

/// What [`KeyValue::cas`] expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// The key is not there.
    Absent,
    /// The key is there, with this revision.
    Revision(u64),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Bytes,
    /// The revision that the write of this value was given.
    pub revision: u64,
}

/// The keys beneath a prefix as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The keys with their values, by key.
    pub entries: Vec<Entry>,
    /// The moment: [watch](KeyValue::watch) from here to miss nothing.
    pub revision: u64,
}

/// Something that has happened beneath a watched prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A key was written.
    Put(Entry),
    /// A key was deleted, or its lease has ended.
    Delete {
        /// The key.
        key: Key,
        /// The revision of the deletion.
        revision: u64,
    },
    /// Forget what was reported before: this is what there is.
    Reset(Listing),
}
