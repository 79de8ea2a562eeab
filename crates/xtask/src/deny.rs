//! The deny stage: licences, bans and sources of all dependencies, by cargo-deny and `deny.toml`.
//!
//! Advisories are not among them: their database comes over the network, and a build that was good stays good.

use std::env::consts::EXE_SUFFIX;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;
use crate::summary::Outcome;
use crate::test::Run;

/// The version whose configuration `deny.toml` is written for.
const VERSION: &str = "0.20.2";

pub(crate) fn stage(run: &Run<'_>) -> Outcome {
    let program = match installed(run.workspace.target()) {
        Some(program) => program,
        None => match install(run) {
            Ok(program) => program,
            Err(outcome) => return outcome,
        },
    };
    let mut command = Command::new(program);
    command.current_dir(run.workspace.root());
    command.args([
        "--all-features",
        "check",
        "--hide-inclusion-graph",
        "licenses",
        "bans",
        "sources",
    ]);
    run.check(&mut command)
}

fn installed(target: &Path) -> Option<PathBuf> {
    let candidates = [PathBuf::from("cargo-deny"), in_tools(&tools(target))];
    candidates
        .into_iter()
        .find(|program| process::succeeds(Command::new(program).arg("--version")))
}

/// Builds it below the target directory, without optimisation: it runs for a second, and is built in a third of the time.
fn install(run: &Run<'_>) -> Result<PathBuf, Outcome> {
    let tools = tools(run.workspace.target());
    let mut command = run
        .workspace
        .cargo(["install", "cargo-deny", "--version", VERSION]);
    command
        .args(["--locked", "--no-default-features", "--debug", "--root"])
        .arg(&tools);
    command.env("CARGO_PROFILE_DEV_DEBUG", "0");
    // The temporary directory that cargo takes by itself goes away afterwards.
    command.env_remove("CARGO_TARGET_DIR");
    match run.check(&mut command) {
        outcome if outcome == Outcome::passed() => Ok(in_tools(&tools)),
        outcome => Err(outcome),
    }
}

fn tools(target: &Path) -> PathBuf {
    target.join(format!("tools/cargo-deny-{VERSION}"))
}

fn in_tools(tools: &Path) -> PathBuf {
    tools.join("bin").join(format!("cargo-deny{EXE_SUFFIX}"))
}
