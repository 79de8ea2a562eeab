//! What reads an answer of an agent's, for the fuzz targets.

use tower_mesh_core::Endpoint;

use crate::{catalog, kv, request::parse};

/// Reads `body` as each of the answers that there are; the endpoints if it is one of those.
pub fn read(body: &[u8]) -> Vec<Endpoint> {
    kv::read(body);
    match parse(body) {
        Ok(lines) => catalog::endpoints(lines).0,
        Err(_) => Vec::new(),
    }
}
