//! The stages of `cargo xtask test`, cheap ones first.
//!
//! All that compile the workspace do it with the one feature set, `--all-features`, so that each reuses what the
//! one before has built, but for the one that asks whether the libraries compile without any: clippy and rustdoc share the metadata of dependencies, tests and doctests their code.

use std::process::Command;

use crate::process;
use crate::results::{Counts, Runner};
use crate::summary::{Outcome, Verdict};
use crate::test::Run;
use crate::{bench, deny, examples, loom, quickstart, servers, sim};

#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    /// Pointless when the workspace does not compile.
    pub(crate) builds: bool,
    pub(crate) run: fn(&Run<'_>) -> Outcome,
}

pub(crate) const ALL: &[Stage] = &[
    Stage {
        name: "fmt",
        builds: false,
        run: fmt,
    },
    Stage {
        name: "clippy",
        builds: true,
        run: clippy,
    },
    Stage {
        name: "features",
        builds: true,
        run: without_features,
    },
    TESTS,
    DOCTESTS,
    Stage {
        name: "rustdoc",
        builds: true,
        run: rustdoc,
    },
    Stage {
        name: "loom",
        builds: true,
        run: loom::stage,
    },
    Stage {
        name: "deny",
        builds: false,
        run: deny::stage,
    },
    Stage {
        name: "quickstart",
        builds: true,
        run: quickstart::stage,
    },
    Stage {
        name: "examples",
        builds: true,
        run: examples::stage,
    },
    Stage {
        name: "storms",
        builds: true,
        run: sim::stage,
    },
    Stage {
        name: "bars",
        builds: true,
        run: bench::stage,
    },
];

/// Those that know tests by name.
pub(crate) const FILTERED: &[Stage] = &[TESTS, DOCTESTS];

const TESTS: Stage = Stage {
    name: "tests",
    builds: true,
    run: tests,
};
const DOCTESTS: Stage = Stage {
    name: "doctests",
    builds: true,
    run: doctests,
};

const WORKSPACE: [&str; 2] = ["--workspace", "--all-features"];
const TEST_TARGETS: [&str; 4] = ["--lib", "--bins", "--tests", "--examples"];

fn fmt(run: &Run<'_>) -> Outcome {
    run.check(&mut run.workspace.cargo(["fmt", "--all", "--check"]))
}

fn clippy(run: &Run<'_>) -> Outcome {
    let mut clippy = workspace_command(run, ["clippy", "--all-targets"]);
    let outcome = run.check(clippy.args(["--", "-D", "warnings"]));
    // A lint leaves the tests worth running, a compile error does not; clippy's exit code is the same for both.
    if outcome.verdict == Verdict::Passed || compiles(run) {
        return outcome;
    }
    Outcome::broken("the workspace does not compile")
}

/// Whoever uses a part takes no more than that: each `cfg(not(feature))` is somebody's build.
fn without_features(run: &Run<'_>) -> Outcome {
    let mut clippy = run.workspace.cargo(["clippy", "--workspace", "--lib"]);
    clippy.arg("--no-default-features");
    for unpublished in ["bench", "examples", "fuzz", "tests"] {
        clippy.args(["--exclude", &format!("tower-mesh-{unpublished}")]);
    }
    run.check(clippy.args(["--", "-D", "warnings"]))
}

fn compiles(run: &Run<'_>) -> bool {
    let mut check = workspace_command(run, ["check", "--all-targets", "--quiet"]);
    process::succeeds(&mut check)
}

fn tests(run: &Run<'_>) -> Outcome {
    let servers = match servers(run) {
        Ok(servers) => servers,
        Err(error) => return Outcome::failed(error),
    };
    let filter = run.options.filter.as_deref();
    let nextest = process::succeeds(&mut run.workspace.cargo(["nextest", "--version"]));
    let mut outcome = if nextest {
        with_nextest(run, filter, servers)
    } else {
        with_libtest(run, filter, servers)
    };
    if run.options.require_servers
        && outcome.counts.skipped > 0
        && outcome.verdict == Verdict::Passed
    {
        outcome.verdict =
            Verdict::Failed("a test was skipped, --require-servers allows none".to_owned());
    }
    outcome
}

/// Whether tests that need a server, and are `#[ignore]`d for it, can run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Servers {
    Found,
    Missing,
}

fn servers(run: &Run<'_>) -> Result<Servers, String> {
    let target = run.workspace.target();
    if run.options.require_servers {
        servers::fetch_missing(target)?;
    }
    let missing = servers::missing(target);
    if missing.is_empty() {
        return Ok(Servers::Found);
    }
    println!(
        "not found: {}; tests that need a server are skipped, `cargo xtask servers` fetches it",
        missing.join(", ")
    );
    Ok(Servers::Missing)
}

fn with_nextest(run: &Run<'_>, filter: Option<&str>, servers: Servers) -> Outcome {
    let mut command = test_command(run, ["nextest", "run", "--no-fail-fast"]);
    command
        .args(TEST_TARGETS)
        .args(["--config-file", "crates/xtask/nextest.toml"]);
    if servers == Servers::Found {
        command.args(["--run-ignored", "all"]);
    }
    let Some(filter) = filter else {
        return run.tests(
            Runner::Nextest,
            command.args(["--final-status-level", "skip"]),
        );
    };
    // What matches may be a doctest, so that nothing does here is no failure yet.
    let outcome = run.tests(
        Runner::Nextest,
        command.args(["--no-tests", "pass", "--", filter]),
    );
    // To nextest a test with another name is a skipped one.
    let counts = Counts {
        skipped: 0,
        ..outcome.counts
    };
    outcome.with(counts)
}

fn with_libtest(run: &Run<'_>, filter: Option<&str>, servers: Servers) -> Outcome {
    let mut command = test_command(run, ["test", "--no-fail-fast"]);
    command.args(TEST_TARGETS).arg("--").args(filter);
    if servers == Servers::Found {
        command.arg("--include-ignored");
    }
    run.tests(Runner::Libtest, &mut command)
}

fn doctests(run: &Run<'_>) -> Outcome {
    let mut command = workspace_command(run, ["test", "--doc", "--no-fail-fast"]);
    run.tests(
        Runner::Libtest,
        command.arg("--").args(run.options.filter.as_deref()),
    )
}

fn rustdoc(run: &Run<'_>) -> Outcome {
    let mut command = workspace_command(run, ["doc", "--no-deps"]);
    run.check(command.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Tests look at this variable themselves, so that each has one text for both.
fn test_command<const N: usize>(run: &Run<'_>, args: [&str; N]) -> Command {
    let mut command = workspace_command(run, args);
    if run.options.long {
        command.env("TOWER_MESH_LONG", "1");
    }
    command
}

fn workspace_command<const N: usize>(run: &Run<'_>, args: [&str; N]) -> Command {
    let mut command = run.workspace.cargo(args);
    command.args(WORKSPACE);
    command
}
