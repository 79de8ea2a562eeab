//! Fuzz targets: each is a function of bytes, which panics when something reads them as it must not.
//!
//! `cargo xtask fuzz` runs them with libFuzzer, from the inputs in `corpus/`; the tests of this crate replay those. An input
//! that made one fail is replayed by `cargo run --package tower-mesh-fuzz --bin TARGET -- FILE`, and belongs into the corpus
//! when it is mended.

mod files;
mod headers;
mod names;

pub use self::{
    files::{config, consul, endpoints, memory},
    headers::{context, deadline, load, verdict},
    names::{address, authority, name},
};

/// What a target is: a function that takes any input, or panics.
pub type Target = fn(&[u8]);

/// Each target, by the name of its program and of its corpus.
pub const TARGETS: [(&str, Target); 11] = [
    ("address", address),
    ("authority", authority),
    ("config", config),
    ("consul", consul),
    ("context", context),
    ("deadline", deadline),
    ("endpoints", endpoints),
    ("load", load),
    ("memory", memory),
    ("name", name),
    ("verdict", verdict),
];

/// Makes a program of a target: libFuzzer's where cargo-fuzz builds it, and else one that replays files.
#[macro_export]
macro_rules! target {
    ($target:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $crate::$target(input));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            $crate::replay($crate::$target, std::env::args_os().skip(1))
        }
    };
}

/// Gives each file, or each in a directory, to `target`, and says which.
///
/// # Errors
///
/// A file cannot be read, or there is none.
pub fn replay(
    target: Target,
    paths: impl IntoIterator<Item = std::ffi::OsString>,
) -> std::io::Result<()> {
    let mut none = true;
    for path in paths {
        for file in files_at(path.as_ref())? {
            println!("{}", file.display());
            target(&std::fs::read(file)?);
            none = false;
        }
    }
    match none {
        true => Err(std::io::Error::other("no input: name files or directories")),
        false => Ok(()),
    }
}

fn files_at(path: &std::path::Path) -> std::io::Result<Vec<std::path::PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path)?;
    let mut files = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the inputs of a target lie.
    fn corpus(name: &str) -> std::ffi::OsString {
        format!("{}/corpus/{name}", env!("CARGO_MANIFEST_DIR")).into()
    }

    macro_rules! replayed {
        ($($target:ident),*) => {$(
            mod $target {
                #[test]
                fn takes_all_of_its_corpus() {
                    let corpus = super::corpus(stringify!($target));
                    crate::replay(crate::$target, [corpus]).expect("it is there and can be read");
                }
            }
        )*
            const REPLAYED: &[&str] = &[$(stringify!($target)),*];
        };
    }

    replayed!(
        address, authority, config, consul, context, deadline, endpoints, load, memory, name,
        verdict
    );

    #[test]
    fn every_target_has_a_program_a_corpus_and_a_test() {
        let names = TARGETS.map(|(name, _)| name);
        assert_eq!(names, REPLAYED);
        let listed = |folder: &str| {
            let path = format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"));
            let files = files_at(path.as_ref()).expect("it is there");
            let names = files
                .iter()
                .map(|file| file.file_stem().unwrap().to_owned());
            names.collect::<Vec<_>>()
        };
        assert_eq!(listed("fuzz_targets"), names);
        assert_eq!(listed("corpus"), names);
    }
}
