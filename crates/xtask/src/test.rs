//! `cargo xtask test`: one stage after the other, then what came of it.

use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::args::TestOptions;
use crate::process::{self, Keep, Stopwatch};
use crate::results::Runner;
use crate::stages::{self, Stage};
use crate::summary::{Outcome, Summary, Verdict};
use crate::workspace::Workspace;

/// CI gives an hour, its machine may be slower than the last one, and nobody waits longer than this.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// What every stage works with.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) workspace: Workspace,
    pub(crate) options: &'a TestOptions,
    since: Stopwatch,
}

pub(crate) fn run(options: &TestOptions) -> ExitCode {
    let workspace = match Workspace::locate() {
        Ok(workspace) => workspace,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let run = Run {
        workspace,
        options,
        since: Stopwatch::start(),
    };
    let summary = match &options.filter {
        None => run.all(stages::ALL),
        Some(filter) => run.matching(filter),
    };
    println!("\n{summary}");
    if summary.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

impl Run<'_> {
    fn all(&self, stages: &[Stage]) -> Summary {
        let mut summary = Summary::new(LIMIT);
        let mut broken = None;
        for stage in stages {
            println!("\n== {}", stage.name);
            let watch = Stopwatch::start();
            let outcome = match broken {
                _ if self.time_left().is_zero() => Outcome::skipped("no time left"),
                Some(by) if stage.builds => {
                    Outcome::skipped(format!("needs what {by} could not build"))
                }
                _ => (stage.run)(self),
            };
            if matches!(outcome.verdict, Verdict::Broken(_)) {
                broken = Some(stage.name);
            }
            summary.add(stage.name, watch.elapsed(), outcome);
        }
        summary
    }

    fn matching(&self, filter: &str) -> Summary {
        let mut summary = self.all(stages::FILTERED);
        if summary.passed() && summary.counts().run() == 0 {
            let none = Outcome::failed(format!("no test that runs has `{filter}` in its name"));
            summary.add("filter", Duration::ZERO, none);
        }
        summary
    }

    fn time_left(&self) -> Duration {
        LIMIT.saturating_sub(self.since.elapsed())
    }

    /// Runs `command`, whose exit code is all that counts.
    pub(crate) fn check(&self, command: &mut Command) -> Outcome {
        match self.execute(command, Keep::Nothing) {
            Ok(_) => Outcome::passed(),
            Err(failed) => failed.outcome,
        }
    }

    /// Runs tests and counts them by what `runner` prints.
    pub(crate) fn tests(&self, runner: Runner, command: &mut Command) -> Outcome {
        let (output, outcome) = match self.execute(command, runner.reports_on()) {
            Ok(output) => (output, Outcome::passed()),
            Err(failed) => (failed.output, failed.outcome),
        };
        let results = match runner.results(&output) {
            Some(results) => results,
            None if outcome.verdict == Verdict::Passed => {
                return Outcome::failed("said nothing that we understand").with_one_failed();
            }
            None => return outcome.with_one_failed(),
        };
        if self.options.filter.is_some() {
            results
                .names
                .iter()
                .for_each(|name| println!("matched: {name}"));
        }
        let outcome = outcome.with(results.counts);
        if outcome.verdict != Verdict::Passed && results.counts.failed == 0 {
            // A test binary that crashed takes its summary with it.
            return outcome.with_one_failed();
        }
        outcome
    }

    /// Runs `command` within the time that is left and returns what `keep` asks for.
    pub(crate) fn execute(&self, command: &mut Command, keep: Keep) -> Result<String, Failed> {
        let finished = process::run(command, keep, self.time_left()).map_err(|error| Failed {
            outcome: Outcome::failed(format!(
                "cannot run {}: {error}",
                command.get_program().display()
            )),
            output: String::new(),
        })?;
        let why = match finished {
            _ if finished.out_of_time => "killed, the time of the whole run is up",
            _ if !finished.success => "see above",
            _ => return Ok(finished.output),
        };
        Err(Failed {
            outcome: Outcome::failed(why),
            output: finished.output,
        })
    }
}

/// A command that did not succeed, and what it had said by then.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) outcome: Outcome,
    pub(crate) output: String,
}
