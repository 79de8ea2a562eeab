//! `cargo xtask sim`: what becomes of the shipped mesh in overload and outages, in virtual time.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use crate::summary::Outcome;
use crate::test::Run;
use crate::workspace::Workspace;

pub(crate) fn run(args: &[OsString]) -> ExitCode {
    let status = Workspace::locate().and_then(|workspace| {
        let status = storms(&workspace).args(args).status();
        status.map_err(|error| format!("cannot run cargo: {error}"))
    });
    match status {
        Ok(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            code.map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The stage of `cargo xtask test`: the fixed seeds, what has to be noticed, and 200 seeds.
pub(crate) fn stage(run: &Run<'_>) -> Outcome {
    run.check(&mut storms(&run.workspace))
}

/// Optimised: it is the simulation's time that counts, not the compiler's.
fn storms(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo([
        "run",
        "--quiet",
        "--release",
        "--package",
        "tower-mesh-bench",
    ]);
    command.args(["--features", "simulation", "--bin", "storms", "--"]);
    command
}
