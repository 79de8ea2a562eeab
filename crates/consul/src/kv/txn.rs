//! Transactions: several operations at once, or none of them.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use tower_mesh_core::Key;

use crate::{consul::Consul, error::ConsulError, request::Request};

/// One operation of a transaction.
#[derive(Debug, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) struct Op {
    kv: Operation,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Operation {
    verb: &'static str,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
}

/// Which operation was refused, and why.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    #[serde(rename = "OpIndex")]
    pub(super) op: usize,
    #[serde(rename = "What", default)]
    pub(super) what: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Done {
    #[serde(default)]
    results: Option<Vec<Written>>,
    #[serde(default)]
    errors: Option<Vec<Refusal>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct Written {
    #[serde(default)]
    kv: Option<Revised>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Revised {
    modify_index: u64,
}

/// What an agent takes of a transaction, in bytes of JSON.
const MOST: usize = 512 * 1024;

/// Whether a transaction of these is not too large.
pub(super) fn fits(ops: &[Op]) -> bool {
    // Names and brackets are less than this an operation, the key and the session aside.
    const AROUND: usize = 160;
    let size = |op: &Op| {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        AROUND + op.kv.key.len() + text(&op.kv.value) + text(&op.kv.session)
    };
    ops.iter().map(size).sum::<usize>() <= MOST
}

impl Op {
    fn new(verb: &'static str, key: &Key) -> Self {
        Self {
            kv: Operation {
                verb,
                key: key.as_str().to_owned(),
                value: None,
                index: None,
                session: None,
            },
        }
    }

    fn with_value(mut self, value: &[u8]) -> Self {
        self.kv.value = Some(STANDARD.encode(value));
        self
    }

    pub(super) fn get(key: &Key) -> Self {
        Self::new("get", key)
    }

    pub(super) fn set(key: &Key, value: &[u8]) -> Self {
        Self::new("set", key).with_value(value)
    }

    /// Writes the key and binds it to a session.
    pub(super) fn lock(key: &Key, value: &[u8], session: &str) -> Self {
        let mut op = Self::new("lock", key).with_value(value);
        op.kv.session = Some(session.to_owned());
        op
    }

    pub(super) fn delete(key: &Key) -> Self {
        Self::new("delete", key)
    }

    pub(super) fn check_absent(key: &Key) -> Self {
        Self::new("check-not-exists", key)
    }

    pub(super) fn check_revision(key: &Key, revision: u64) -> Self {
        let mut op = Self::new("check-index", key);
        op.kv.index = Some(revision);
        op
    }
}

impl Refusal {
    pub(super) fn is_of_session(&self) -> bool {
        self.what.contains("session")
    }

    pub(super) fn is_of_lock_delay(&self) -> bool {
        self.what.contains("delay")
    }
}

impl Consul {
    /// The revision that the last operation gave its key, or why nothing was done.
    pub(super) async fn transact(
        &self,
        ops: &[Op],
        needs: String,
    ) -> Result<Result<u64, Refusal>, ConsulError> {
        let request = Request::put(&["txn"], needs.clone()).json(&ops)?;
        let answer = self.call(&request).await?;
        let refused = answer.status == 409;
        let done: Done = answer.json().await?;
        if let Some(refusal) = done.errors.into_iter().flatten().next() {
            // The transaction as a whole is never denied, only what it does.
            if refusal.what.contains("ermission denied") {
                return Err(ConsulError::denied(&needs, &refusal.what));
            }
            return Ok(Err(refusal));
        }
        let last = done.results.into_iter().flatten().rev();
        let revision = last
            .filter_map(|written| written.kv)
            .map(|kv| kv.modify_index);
        match revision.into_iter().next() {
            Some(revision) if !refused => Ok(Ok(revision)),
            _ => Err(ConsulError::malformed(
                "the transaction's answer says nothing",
            )),
        }
    }
}

/// Reads `body` as the answer to a transaction.
#[cfg(feature = "testing")]
pub(super) fn read(body: &[u8]) {
    drop(crate::request::parse::<Done>(body));
}
