//! `cargo xtask bench`: what a call through the mesh costs, beside its peers, and whether that is within the bars.

mod bars;
mod cases;
mod growth;
mod lackey;
mod measure;
mod readme;
mod report;
mod valgrind;

use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;

use self::cases::Case;
use self::growth::Growth;
use self::measure::{Lab, Results};
use self::report::Origin;
use self::valgrind::Valgrind;
use crate::summary::Outcome;
use crate::test::Run;
use crate::workspace::Workspace;

/// What of the bench is wanted.
#[derive(Debug, PartialEq)]
pub(crate) enum BenchOptions {
    /// All cases, or those whose name contains one of the filters.
    Table { filters: Vec<String>, json: bool },
    /// The bars, and only what they need.
    Check,
    /// The simulation of balancers, which has a command line of its own.
    Balance(Vec<OsString>),
}

pub(crate) fn run(options: &BenchOptions) -> ExitCode {
    let done = Workspace::locate().and_then(|workspace| match options {
        BenchOptions::Table { filters, json } => table(&workspace, filters, *json).map(|()| true),
        BenchOptions::Check => check(&workspace),
        BenchOptions::Balance(args) => balance(&workspace, args),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The stage of `cargo xtask test`: a run of its own, so that it is ended with the others when the time is up.
pub(crate) fn stage(run: &Run<'_>) -> Outcome {
    run.check(&mut run.workspace.cargo(["xtask", "bench", "--check"]))
}

fn table(workspace: &Workspace, filters: &[String], json: bool) -> Result<(), String> {
    let cases = cases::matching(filters);
    if cases.is_empty() {
        let all: Vec<_> = cases::ALL.iter().map(|case| case.name).collect();
        return Err(format!(
            "no case has {} in its name; there are:\n  {}",
            filters.join(" or "),
            all.join("\n  ")
        ));
    }
    let valgrind = Valgrind::find(workspace.target())?;
    let lab = Lab {
        workspace,
        valgrind: &valgrind,
    };
    build(&lab, &cases, filters.is_empty())?;
    let mut results = lab.count(&cases)?;
    lab.contend(&cases, &mut results)?;
    lab.time(&cases, &mut results)?;
    let growth = match filters {
        [] => Growth::measure(&lab)?,
        _ => Growth::default(),
    };
    let origin = Origin::of(workspace, &valgrind)?;
    let as_json = report::json(&origin, &results, &growth);
    if filters.is_empty() {
        publish(workspace, &origin, &cases, &results, &growth)?;
    }
    if json {
        println!("{as_json:#}");
    } else {
        println!("{}", report::table(&cases, &results));
    }
    Ok(())
}

/// Writes what is committed: the whole table, its figures, and the README's part of it.
fn publish(
    workspace: &Workspace,
    origin: &Origin,
    cases: &[&'static Case],
    results: &Results,
    growth: &Growth,
) -> Result<(), String> {
    let readme = fs::read_to_string(workspace.root().join("README.md"));
    let readme = readme.map_err(|error| format!("README.md: {error}"))?;
    let files = [
        (
            "crates/bench/results/latest.json",
            format!("{:#}\n", report::json(origin, results, growth)),
        ),
        (
            "crates/bench/results/latest.md",
            report::markdown(origin, cases, results, growth),
        ),
        ("README.md", readme::into_readme(&readme, results)?),
    ];
    for (file, text) in files {
        let path = workspace.root().join(file);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all);
        written
            .and_then(|()| fs::write(&path, text))
            .map_err(|error| format!("{file}: {error}"))?;
        eprintln!("wrote {file}");
    }
    Ok(())
}

/// Ours without the peers, so that nothing they switch on in a shared dependency is in our figures.
fn build(lab: &Lab<'_>, cases: &[&'static Case], growth: bool) -> Result<(), String> {
    let binaries = |peers: bool| {
        let cases = cases.iter().filter(|case| case.is_peer() == peers);
        let mut binaries: Vec<_> = cases.map(|case| case.binary).collect();
        binaries.sort_unstable();
        binaries.dedup();
        binaries
    };
    lab.build(&binaries(true), true)?;
    let mut ours = binaries(false);
    ours.extend(growth.then_some("growth"));
    lab.build(&ours, false)
}

fn check(workspace: &Workspace) -> Result<bool, String> {
    let valgrind = Valgrind::find(workspace.target())?;
    let lab = Lab {
        workspace,
        valgrind: &valgrind,
    };
    let needed: Vec<_> = bars::ALL
        .iter()
        .flat_map(|bar| bar.cases)
        .copied()
        .collect();
    let cases = cases::with_what_they_need(&needed);
    build(&lab, &cases, true)?;
    let results = lab.count(&cases)?;
    let growth = Growth::measure(&lab)?;
    let (text, good) = bars::check(bars::ALL, &results, &growth);
    println!("{text}");
    Ok(good)
}

fn balance(workspace: &Workspace, args: &[OsString]) -> Result<bool, String> {
    let package = ["run", "--profile", "bench", "--package", "tower-mesh-bench"];
    let mut command = workspace.cargo(package);
    command
        .args(["--features", "balance", "--bin", "balance", "--"])
        .args(args);
    let status = command.status();
    status
        .map(|status| status.success())
        .map_err(|error| format!("cannot run cargo: {error}"))
}
