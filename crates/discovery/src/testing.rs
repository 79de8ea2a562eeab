//! What reads a file of endpoints, for the fuzz targets.

use crate::file::text::{Format, read};

/// Reads `text` as TOML and as JSON; what is wrong with it if it is neither.
pub fn read_file(text: &str) -> Option<String> {
    let toml = read(text, Format::Toml).err()?;
    let json = read(text, Format::Json).err()?;
    Some(format!("{toml}; {json}"))
}
