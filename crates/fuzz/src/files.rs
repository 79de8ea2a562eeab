//! Texts: what people write, what a registry answers, what an earlier process has left.

use std::str;

use tower_mesh::Config;

/// A configuration: TOML.
pub fn config(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    if let Err(error) = Config::parse(text) {
        let lines = text.split('\n').count();
        let line = error.line().unwrap_or(1);
        assert!((1..=lines).contains(&line), "{error} of {lines} lines");
        assert!(!error.to_string().is_empty());
    }
}

/// A file of endpoints, in both of its formats.
pub fn endpoints(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    if let Some(wrong) = tower_mesh_discovery::testing::read_file(text) {
        assert!(wrong.len() < 4_000, "bounded, whatever came: {wrong}");
    }
}

/// The body of an answer of Consul's, whatever was asked.
pub fn consul(input: &[u8]) {
    for endpoint in tower_mesh_consul::testing::read(input) {
        assert_ne!(endpoint.address().port(), 0);
    }
}

/// What a process before this one has remembered: the file as it is, and with a first line that is right.
pub fn memory(input: &[u8]) {
    tower_mesh::testing::read_memory(input);
    tower_mesh::testing::read_memory(&tower_mesh::testing::memory_of(input));
}
