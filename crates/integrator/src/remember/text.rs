//! What stands in the file: a line that says what it is and whether it is whole, then JSON.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};
use tower_mesh_core::{Endpoint, Weight};

use crate::snapshot::Snapshot;

/// The largest file that is written or read.
pub(super) const MOST: usize = 32 << 20;

/// The first word of the first line; it is followed by the version, the checksum and the length of the rest.
const MAGIC: &str = "tower-mesh-memory";
const VERSION: u32 = 1;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Memory {
    pub(super) learned: Snapshot,
    pub(crate) services: BTreeMap<String, Known>,
}

/// The endpoints of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    /// When the registry last stood by them, in milliseconds since 1970.
    pub(super) confirmed: u64,
    endpoints: Vec<Described>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    id: String,
    address: SocketAddr,
    weight: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    priority: u8,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

/// Why a file is not read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// Somebody else's: it is left alone.
    Foreign,
    /// Ours, and useless: it may be written over.
    Damaged(String),
}

impl Known {
    pub(super) fn new(confirmed: u64, endpoints: &[Endpoint]) -> Self {
        Self {
            confirmed,
            endpoints: endpoints.iter().map(Described::of).collect(),
        }
    }

    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.endpoints.iter().map(Described::endpoint).collect()
    }
}

impl Described {
    fn of(endpoint: &Endpoint) -> Self {
        let metadata = endpoint.all_metadata();
        Self {
            id: endpoint.id().to_owned(),
            address: endpoint.address(),
            weight: endpoint.weight().get(),
            zone: endpoint.zone().map(str::to_owned),
            priority: endpoint.priority(),
            tags: endpoint.tags().map(str::to_owned).collect(),
            metadata: metadata
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    fn endpoint(&self) -> Endpoint {
        let mut endpoint = Endpoint::new(self.address)
            .with_id(&self.id)
            .with_weight(Weight::new(self.weight))
            .with_priority(self.priority);
        if let Some(zone) = &self.zone {
            endpoint = endpoint.with_zone(zone);
        }
        for tag in &self.tags {
            endpoint = endpoint.with_tag(tag);
        }
        let metadata = self.metadata.iter();
        metadata.fold(endpoint, |e, (key, value)| e.with_metadata(key, value))
    }
}

pub(crate) fn write(memory: &Memory) -> Result<Vec<u8>, String> {
    let body = serde_json::to_vec(memory).map_err(|error| error.to_string())?;
    if body.len() > MOST {
        return Err(format!("there is more to remember than {MOST} bytes"));
    }
    Ok(framed(&body))
}

/// `body` beneath the line that says what it is and whether it is whole.
pub(crate) fn framed(body: &[u8]) -> Vec<u8> {
    let (checksum, length) = (checksum(body), body.len());
    let mut text = format!("{MAGIC} {VERSION} {checksum:016x} {length}\n").into_bytes();
    text.extend(body);
    text
}

pub(crate) fn read(text: &[u8]) -> Result<Memory, Unread> {
    let damaged = |what: &str| Err(Unread::Damaged(what.to_owned()));
    let magic = &MAGIC.as_bytes()[..MAGIC.len().min(text.len())];
    if !text.starts_with(magic) {
        return Err(Unread::Foreign);
    }
    let line = text.iter().position(|byte| *byte == b'\n');
    let Some(line) = line.filter(|at| *at < 100) else {
        return damaged("it has no first line");
    };
    let (head, body) = (String::from_utf8_lossy(&text[..line]), &text[line + 1..]);
    let [MAGIC, version, sum, length] = head.split(' ').collect::<Vec<_>>()[..] else {
        return damaged("its first line is not understood");
    };
    if version != VERSION.to_string() {
        return damaged("it is of another version");
    }
    if length != body.len().to_string() {
        return damaged("it is not whole");
    }
    if sum != format!("{:016x}", checksum(body)) {
        return damaged("its checksum is another");
    }
    let memory: Memory =
        serde_json::from_slice(body).map_err(|error| Unread::Damaged(error.to_string()))?;
    let learned = memory.learned.check();
    learned.map_err(|error| Unread::Damaged(error.to_string()))?;
    Ok(memory)
}

/// FNV-1a. It is against accidents: whoever can write the file can write this as well.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        let plain = Endpoint::new(([10, 0, 0, 1], 80).into());
        let full = Endpoint::new(([10, 0, 0, 2], 81).into())
            .with_id("two")
            .with_weight(Weight::new(7))
            .with_zone("eu/1a")
            .with_priority(2)
            .with_tag("canary")
            .with_metadata("version", "2");
        let known = Known::new(5, &[plain, full]);
        Memory {
            services: BTreeMap::from([("orders".to_owned(), known)]),
            ..Memory::default()
        }
    }

    #[test]
    fn all_that_is_said_of_an_endpoint_comes_back() {
        let text = write(&memory()).expect("it is written");
        let read = read(&text).expect("it is read");
        assert_eq!(read, memory());
        let full = &read.services["orders"].endpoints()[1];
        assert_eq!(
            (full.id(), full.weight().get(), full.zone()),
            ("two", 7, Some("eu/1a"))
        );
        assert_eq!((full.priority(), full.metadata("version")), (2, Some("2")));
        assert!(full.has_tag("canary"));
    }

    #[test]
    fn wherever_it_is_cut_off_and_whichever_bit_is_another_it_is_refused() {
        let text = write(&memory()).expect("it is written");
        for end in 0..text.len() {
            let cut = read(&text[..end]);
            assert!(matches!(cut, Err(Unread::Damaged(_))), "{end}: {cut:?}");
        }
        for at in 0..text.len() {
            let mut bad = text.clone();
            bad[at] ^= 1;
            assert!(read(&bad).is_err(), "{at}");
        }
    }

    #[test]
    fn what_is_of_another_version_or_somebody_elses_is_told_apart() {
        let text = write(&memory()).expect("it is written");
        let text = String::from_utf8(text).expect("it is text");
        let newer = text.replacen("memory 1 ", "memory 2 ", 1);
        let version = Unread::Damaged("it is of another version".to_owned());
        assert_eq!(read(newer.as_bytes()), Err(version));
        for foreign in ["root:x:0:0", "{}", "tower-mesh = 1\n"] {
            assert_eq!(read(foreign.as_bytes()), Err(Unread::Foreign));
        }
    }
}
