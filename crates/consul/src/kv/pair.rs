//! A key as Consul writes it.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, de};
use tower_mesh_core::{Key, kv::Entry};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Pair {
    key: String,
    /// Null if it is empty.
    #[serde(default, deserialize_with = "decoded")]
    value: Bytes,
    #[serde(default)]
    flags: u64,
    /// Not `LockIndex`, which a plain write sets back: this alone grows with each write.
    modify_index: u64,
    #[serde(default)]
    session: Option<String>,
}

fn decoded<'de, D: Deserializer<'de>>(de: D) -> Result<Bytes, D::Error> {
    let text = Option::<String>::deserialize(de)?.unwrap_or_default();
    let value = STANDARD.decode(text).map_err(de::Error::custom)?;
    Ok(value.into())
}

impl Pair {
    pub(super) fn revision(&self) -> u64 {
        self.modify_index
    }

    pub(super) fn flags(&self) -> u64 {
        self.flags
    }

    pub(super) fn is_leased(&self) -> bool {
        self.session.as_ref().is_some_and(|id| !id.is_empty())
    }

    pub(super) fn entry(self, key: Key) -> Entry {
        Entry {
            key,
            value: self.value,
            revision: self.modify_index,
        }
    }

    /// None if its name is no key of ours.
    pub(super) fn named(self) -> Option<Entry> {
        let key = Key::new(&self.key).ok()?;
        Some(self.entry(key))
    }
}
