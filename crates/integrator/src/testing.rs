//! What reads the file of what is remembered, and where URIs lead, for the fuzz targets.

use http::Uri;
use tower_mesh_core::ServiceName;

use crate::{client::authority, remember::text};

/// The service that `uri` names to a [`MeshClient`](crate::MeshClient), or why it names none.
///
/// # Errors
///
/// As a client's, in words.
pub fn service_of(uri: &Uri) -> Result<ServiceName, String> {
    authority::service(uri)
}

/// Whether a [`MeshClient`](crate::MeshClient) that lets `host` through would let `uri` through.
pub fn passes(host: &str, uri: &Uri) -> bool {
    authority::Hosts::new([host]).have(uri)
}

/// Reads `file`; what is read has to survive being written.
///
/// # Panics
///
/// If it does not.
pub fn read_memory(file: &[u8]) {
    let Ok(memory) = text::read(file) else {
        return;
    };
    for known in memory.services.values() {
        drop(known.endpoints());
    }
    let written = text::write(&memory).expect("it is no larger than what was read");
    assert_eq!(text::read(&written), Ok(memory));
}

/// A file with `body` in it, whose first line is right: no chance finds a checksum.
pub fn memory_of(body: &[u8]) -> Vec<u8> {
    text::framed(body)
}
