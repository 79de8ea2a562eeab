//! The loom stage: finds the models of the workspace and runs them, each thread order in turn.
//!
//! A model is a test under `#[cfg(all(test, mesh_loom))]`, alone or with its module, or in a crate's `tests/loom.rs`.
//! Only models are run: under `--cfg mesh_loom` an ordinary test that touches an atomic panics outside of a model.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use crate::results::Runner;
use crate::summary::{Outcome, Verdict};
use crate::test::Run;

/// Loom's own advice: few bugs need more preemptions than this, and each one more multiplies the time.
const PREEMPTIONS: (&str, &str) = ("LOOM_MAX_PREEMPTIONS", "3");

/// What to run, over all crates: one command means one resolution of features, so dependencies are built once.
#[derive(Debug, Default)]
struct Models {
    /// Packages with models in their sources, and the names to filter these by.
    packages: BTreeSet<String>,
    names: BTreeSet<String>,
    /// Packages with a `tests/loom.rs`.
    integration: BTreeSet<String>,
}

pub(crate) fn stage(run: &Run<'_>) -> Outcome {
    let models = match Models::find(&run.workspace.root().join("crates")) {
        Ok(models) => models,
        Err(error) => return Outcome::failed(format!("cannot read the crates: {error}")),
    };
    let mut outcome = Outcome::passed();
    for mut command in models.commands(run) {
        let next = run.tests(Runner::Libtest, &mut command);
        outcome = and(outcome, next);
    }
    if outcome.verdict == Verdict::Passed && outcome.counts.run() == 0 {
        return Outcome::failed("no model was found");
    }
    outcome
}

impl Models {
    fn find(crates: &Path) -> io::Result<Self> {
        let mut found = Self::default();
        for entry in fs::read_dir(crates)? {
            let folder = entry?.path();
            let Ok(manifest) = fs::read_to_string(folder.join("Cargo.toml")) else {
                continue;
            };
            let Some(package) = package_name(&manifest) else {
                continue;
            };
            for source in sources(&folder.join("src"))? {
                let names = model_names(&fs::read_to_string(source)?);
                if !names.is_empty() {
                    found.packages.insert(package.to_owned());
                    found.names.extend(names);
                }
            }
            if folder.join("tests/loom.rs").exists() {
                found.integration.insert(package.to_owned());
            }
        }
        Ok(found)
    }

    fn commands(&self, run: &Run<'_>) -> Vec<Command> {
        let mut commands = Vec::new();
        if !self.packages.is_empty() {
            let mut command = loom_command(run, &self.packages);
            command.args(["--lib", "--"]).args(&self.names);
            commands.push(command);
        }
        if !self.integration.is_empty() {
            let mut command = loom_command(run, &self.integration);
            command.args(["--test", "loom"]);
            commands.push(command);
        }
        commands
    }
}

fn loom_command(run: &Run<'_>, packages: &BTreeSet<String>) -> Command {
    let mut command =
        run.workspace
            .cargo(["test", "--release", "--all-features", "--no-fail-fast"]);
    // Its own directory: with another cfg everything is compiled anew, and would be again by the next stage.
    command
        .arg("--target-dir")
        .arg(run.workspace.target().join("loom"));
    command.env("RUSTFLAGS", "--cfg mesh_loom");
    if env::var_os(PREEMPTIONS.0).is_none() {
        command.env(PREEMPTIONS.0, PREEMPTIONS.1);
    }
    for package in packages {
        command.args(["--package", package]);
    }
    command
}

fn and(one: Outcome, other: Outcome) -> Outcome {
    let mut counts = one.counts;
    counts += other.counts;
    let worse = if one.verdict == Verdict::Passed {
        other
    } else {
        one
    };
    worse.with(counts)
}

/// All Rust files below `folder`; none when there is no such folder.
fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if !folder.is_dir() {
        return Ok(found);
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The first `name = "…"`, which in our manifests is the package's.
fn package_name(manifest: &str) -> Option<&str> {
    let line = manifest.lines().find(|line| line.starts_with("name = "))?;
    line.split('"').nth(1)
}

/// The names of the modules and functions that exist only when loom tests.
fn model_names(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut lines = source.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if is_model_cfg(line) {
            let item = lines
                .by_ref()
                .find(|line| !line.starts_with("#[") && !line.starts_with("//"));
            names.extend(item.and_then(item_name).map(str::to_owned));
        }
    }
    names
}

fn is_model_cfg(line: &str) -> bool {
    let Some(conditions) = line.strip_prefix("#[cfg(all(") else {
        return false;
    };
    conditions.contains("test") && conditions.contains("mesh_loom") && !conditions.contains("not(")
}

fn item_name(line: &str) -> Option<&str> {
    let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.find(|word| matches!(*word, "mod" | "fn"))?;
    words.next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Counts;

    // Each line is a string of its own, so that this file has no model in it when it is searched.
    #[test]
    fn modules_and_functions_of_models_are_found_by_name() {
        let source = [
            "#[cfg(all(test, mesh_loom))]",
            "mod models;",
            "    #[cfg(all(mesh_loom, test, feature = \"testing\"))]",
            "    #[test]",
            "    /// Says why.",
            "    fn two_threads_race() {}",
            "#[cfg(all(test, mesh_loom))]",
            "pub(crate) mod more {}",
        ];
        assert_eq!(
            model_names(&source.join("\n")),
            ["models", "two_threads_race", "more"]
        );
    }

    #[test]
    fn what_merely_mentions_loom_is_not_a_model() {
        let source = [
            "#[cfg(mesh_loom)]",
            "use loom::sync::atomic;",
            "#[cfg(all(test, not(mesh_loom)))]",
            "mod tests {}",
            "#[cfg(all(test, mesh_loom))]",
            "use loom::model;",
        ];
        assert!(model_names(&source.join("\n")).is_empty());
    }

    #[test]
    fn a_package_is_known_by_its_manifest() {
        let manifest = "[package]\nname = \"tower-mesh-core\"\nversion.workspace = true\n[[test]]\nname = \"x\"\n";
        assert_eq!(package_name(manifest), Some("tower-mesh-core"));
        assert_eq!(package_name("[workspace]\n"), None);
    }

    #[test]
    fn one_failure_fails_the_stage_and_all_is_counted() {
        let good = || {
            Outcome::passed().with(Counts {
                passed: 2,
                ..Counts::default()
            })
        };
        let bad = || {
            Outcome::failed("see above").with(Counts {
                failed: 1,
                ..Counts::default()
            })
        };
        for outcome in [and(good(), bad()), and(bad(), good())] {
            assert_ne!(outcome.verdict, Verdict::Passed);
            assert_eq!(
                outcome.counts,
                Counts {
                    passed: 2,
                    failed: 1,
                    skipped: 0
                }
            );
        }
    }
}
