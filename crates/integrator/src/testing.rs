//! What reads the file of what is remembered, for the fuzz targets.

use crate::remember::text;

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
