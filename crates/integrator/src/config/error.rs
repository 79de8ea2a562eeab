//! What is wrong with a configuration, and where.

use std::{fmt, io, path::Path};

use toml::de::{DeTable, DeValue};

/// A configuration was refused; the one in force stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    file: Option<String>,
    line: Option<usize>,
    key: String,
    what: String,
}

impl ConfigError {
    /// `what` is wrong with the value of `key`.
    pub(crate) fn at(key: &str, what: impl Into<String>) -> Self {
        Self {
            file: None,
            line: None,
            key: key.to_owned(),
            what: what.into(),
        }
    }

    pub(crate) fn file(file: &Path, error: &io::Error) -> Self {
        Self::at("", format!("cannot read it: {error}")).in_file(file)
    }

    /// What the TOML reader says, with the key and the line it is about.
    pub(super) fn syntax(text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map_or(0, |span| span.start);
        let key =
            DeTable::parse(text).map_or_else(|_| Vec::new(), |table| path_at(table.get_ref(), at));
        let mut this = Self::at(&key.join("."), suggest(error.message()));
        this.line = error.span().map(|span| line_of(text, span.start));
        this
    }

    pub(crate) fn in_file(mut self, file: &Path) -> Self {
        self.file = Some(file.display().to_string());
        self
    }

    /// The same, with `section` before its key.
    pub(crate) fn beneath(mut self, section: &str) -> Self {
        self.key = format!("{section}.{}", self.key);
        self
    }

    /// The same, with the line that its key, or the nearest section that is there, stands on.
    pub(crate) fn locate(mut self, text: &str) -> Self {
        if let Ok(table) = DeTable::parse(text) {
            self.line = offset_of(table.get_ref(), &self.key).map(|at| line_of(text, at));
        }
        self
    }

    /// The key that is wrong, such as `services.orders.timeout`; empty if none is to blame.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The line of the file, from 1, if the configuration came from a text.
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file.as_deref().unwrap_or("configuration"))?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ", `{}`", self.key)?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for ConfigError {}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The keys that lead to what stands at `at`.
fn path_at(table: &DeTable<'_>, at: usize) -> Vec<String> {
    for (key, value) in table {
        let inside = match value.get_ref() {
            DeValue::Table(table) => path_at(table, at),
            DeValue::Array(items) => items
                .iter()
                .filter_map(|item| item.get_ref().as_table())
                .map(|table| path_at(table, at))
                .find(|path| !path.is_empty())
                .unwrap_or_default(),
            _ => Vec::new(),
        };
        if !inside.is_empty() || key.span().contains(&at) || value.span().contains(&at) {
            return std::iter::once(key.get_ref().to_string())
                .chain(inside)
                .collect();
        }
    }
    Vec::new()
}

/// Where `key` stands, or else the deepest section on the way to it.
fn offset_of(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let mut table = table;
    let mut offset = None;
    for part in key.split('.') {
        let Some((name, value)) = table
            .iter()
            .find(|(name, _)| name.get_ref().as_ref() == part)
        else {
            break;
        };
        offset = Some(name.span().start);
        match value.get_ref() {
            DeValue::Table(next) => table = next,
            _ => break,
        }
    }
    offset
}

/// Turns serde's "unknown field `timout`, expected one of …" into the nearest key that exists.
fn suggest(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let is_unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let Some(unknown) = quoted.next().filter(|_| is_unknown) else {
        return message.to_owned();
    };
    let valid: Vec<&str> = quoted.collect();
    let nearest = valid.iter().max_by(|a, b| {
        strsim::jaro_winkler(a, unknown).total_cmp(&strsim::jaro_winkler(b, unknown))
    });
    match nearest {
        Some(nearest) => format!(
            "`{unknown}` does not exist, did you mean `{nearest}`? (there are {})",
            valid.join(", ")
        ),
        None => message.to_owned(),
    }
}
