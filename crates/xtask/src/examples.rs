//! The stage of the examples that need a server: each is run for real, and has to succeed.

use crate::process::Keep;
use crate::servers;
use crate::summary::Outcome;
use crate::test::Run;

pub(crate) fn stage(run: &Run<'_>) -> Outcome {
    let missing = servers::missing(run.workspace.target());
    if !missing.is_empty() {
        return Outcome::skipped(format!("not found: {}", missing.join(", ")));
    }
    let mut command = run
        .workspace
        .cargo(["run", "--release", "--package", "tower-mesh-examples"]);
    command.args(["--example", "consul"]);
    match run.execute(&mut command, Keep::Stdout) {
        Ok(_) => Outcome::passed(),
        Err(failed) => failed.outcome,
    }
}
