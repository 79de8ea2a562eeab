//! What the files have said so far, and what they say now.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Limits,
    settle::{Advice, Settle},
    stamp::Stamp,
    text::{self, Format, Services},
};

/// More files than this in a directory were not written for us.
const MOST_FILES: usize = 1_000;

/// Everything that is known of the files.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: BTreeMap<PathBuf, Known>,
    /// What all of them said when the whole was last acceptable.
    services: Option<Arc<Services>>,
    /// Why the whole is not acceptable.
    too_much: Option<String>,
}

/// What is known of one file.
#[derive(Debug, Default)]
struct Known {
    settle: Settle<Option<Stamp>>,
    /// What it said when it was last understood.
    good: Option<Said>,
    wrong: Option<String>,
}

#[derive(Debug)]
struct Said {
    services: Services,
    bytes: u64,
}

/// What followers are told.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// None before something was understood.
    pub(super) services: Option<Arc<Services>>,
    /// What is wrong with the files.
    pub(super) wrong: Option<Arc<str>>,
}

/// What a look has brought.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) told: Told,
    pub(super) again_soon: bool,
}

impl PartialEq for Told {
    /// What was read again counts as new: those who follow compare what concerns them.
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.services, &other.services) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        same && self.wrong == other.wrong
    }
}

impl Files {
    /// Looks at the file, or the directory, at `path`.
    pub(super) fn look(&mut self, path: &Path, limits: Limits) -> Looked {
        let (found, missing) = match list(path) {
            Ok(found) => (found, None),
            Err(wrong) => (BTreeSet::new(), Some(wrong)),
        };
        let (mut news, mut again_soon) = (false, false);
        for file in &found {
            let known = self.files.entry(file.clone()).or_default();
            let advice = known
                .settle
                .look(fs::metadata(file).ok().map(|m| Stamp::of(&m)));
            again_soon |= matches!(advice, Advice::Wait | Advice::ReadAndWait);
            if matches!(advice, Advice::Read | Advice::ReadAndWait) {
                news |= known.read(file, limits);
            }
        }
        for (file, known) in &mut self.files {
            if !found.contains(file) {
                known.vanished(file);
            }
        }
        // One that was never understood and is gone is nothing to remember.
        self.files
            .retain(|file, known| known.good.is_some() || found.contains(file));
        if news {
            self.merge(limits);
        }
        let told = Told {
            services: self.services.clone(),
            wrong: self.wrong().or(missing).map(Into::into),
        };
        Looked { told, again_soon }
    }

    /// Puts together what the files say, unless it is too much.
    fn merge(&mut self, limits: Limits) {
        let said = || self.files.values().filter_map(|known| known.good.as_ref());
        let bytes: u64 = said().map(|said| said.bytes).sum();
        let endpoints = said().flat_map(|said| said.services.values()).map(Vec::len);
        let endpoints: usize = endpoints.sum();
        self.too_much = if bytes > limits.bytes {
            Some(format!(
                "the files hold {bytes} bytes, more than the {} that are allowed (max_bytes)",
                limits.bytes
            ))
        } else if endpoints > limits.endpoints {
            Some(format!(
                "the files name {endpoints} endpoints, more than the {} that are allowed (max_endpoints)",
                limits.endpoints
            ))
        } else {
            None
        };
        if self.too_much.is_some() {
            return;
        }
        let mut services = Services::new();
        for (service, endpoints) in said().flat_map(|said| &said.services) {
            let all = services.entry(service.clone()).or_default();
            all.extend(endpoints.iter().cloned());
        }
        self.services = Some(Arc::new(services));
    }

    fn wrong(&self) -> Option<String> {
        let files = self.files.values().filter_map(|known| known.wrong.as_ref());
        let mut all = files.chain(&self.too_much);
        let first = all.next()?;
        Some(match all.count() {
            0 => first.clone(),
            more => format!("{first} (and {more} more)"),
        })
    }
}

impl Known {
    /// Reads the file; whether it was understood.
    fn read(&mut self, file: &Path, limits: Limits) -> bool {
        match said(file, limits) {
            Ok(said) => {
                self.good = Some(said);
                self.wrong = None;
                true
            }
            Err(wrong) => {
                let kept = match self.good {
                    Some(_) => "; what it said before stays",
                    None => "",
                };
                self.wrong = Some(format!("{}{wrong}{kept}", file.display()));
                false
            }
        }
    }

    fn vanished(&mut self, file: &Path) {
        // When it is back it is another file, whatever it looks like.
        self.settle = Settle::default();
        self.wrong = Some(format!(
            "{} has vanished; what it said stays (to take endpoints away, write an empty list)",
            file.display()
        ));
    }
}

/// The file at `path`, or those of the directory at `path` that are ours.
fn list(path: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let cannot = |error: io::Error| format!("cannot read {}: {error}", path.display());
    if !fs::metadata(path).map_err(cannot)?.is_dir() {
        return Ok(BTreeSet::from([path.to_owned()]));
    }
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(path).map_err(cannot)? {
        let file = entry.map_err(cannot)?.path();
        // By a link or not; what begins with a dot is an editor's, or the directory that Kubernetes exchanges.
        let hidden = file
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && format(&file).is_some() && !file.is_dir() {
            files.insert(file);
        }
        if files.len() > MOST_FILES {
            return Err(format!(
                "{} holds more than {MOST_FILES} files",
                path.display()
            ));
        }
    }
    Ok(files)
}

fn format(file: &Path) -> Option<Format> {
    match file.extension().and_then(OsStr::to_str) {
        Some("toml") => Some(Format::Toml),
        Some("json") => Some(Format::Json),
        _ => None,
    }
}

/// What `file` says, or the rest of a sentence that begins with its name.
fn said(file: &Path, limits: Limits) -> Result<Said, String> {
    let format = format(file).ok_or(": only .toml and .json are understood")?;
    let cannot = |error: io::Error| format!(": cannot read it: {error}");
    let mut bytes = Vec::new();
    let opened = fs::File::open(file).map_err(cannot)?;
    let mut bounded = opened.take(limits.bytes.saturating_add(1));
    bounded.read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > limits.bytes {
        return Err(format!(
            ": it is larger than the {} bytes that are allowed (max_bytes)",
            limits.bytes
        ));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| ": it is no text in UTF-8")?;
    Ok(Said {
        services: text::read(text, format).map_err(|mistake| mistake.to_string())?,
        bytes: bytes.len() as u64,
    })
}
