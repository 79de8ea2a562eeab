//! The deny stage: licences, bans and sources of all dependencies, by cargo-deny and `deny.toml`.
//!
//! Advisories are not among them: their database comes over the network, and a build that was good stays good.

use std::process::Command;

use crate::summary::Outcome;
use crate::test::Run;
use crate::tools::Tool;

/// Of the version whose configuration `deny.toml` is written for.
const DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    options: &["--no-default-features"],
};

pub(crate) fn stage(run: &Run<'_>) -> Outcome {
    let target = run.workspace.target();
    let program = match DENY.find(target) {
        Some(program) => program,
        None => match run.check(&mut DENY.install(&run.workspace)) {
            outcome if outcome == Outcome::passed() => DENY.built(target),
            outcome => return outcome,
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
