//! Runs cases beneath the instruments, and keeps what they say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Map, Value};

use super::cases::{self, Case, Shown};
use super::valgrind::Valgrind;
use crate::process;
use crate::workspace::Workspace;

/// Two numbers of calls: what is between them is what calls cost, without start and end.
const FEW: u64 = 2_000;
const MANY: u64 = 12_000;

/// How often all cases are timed in turn; the best of each counts.
const ROUNDS: usize = 3;

/// How long a timed round of calls should take, in nanoseconds: long enough to be more than noise.
const ROUND: f64 = 5e6;

/// What one call of a case costs. What was not measured is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) instructions: Option<f64>,
    pub(crate) allocations: Option<f64>,
    pub(crate) bytes: Option<f64>,
    pub(crate) clock_reads: Option<f64>,
    pub(crate) timers: Option<f64>,
    /// Stores to cache lines to which another thread's calls store, too.
    pub(crate) contended: Option<f64>,
    pub(crate) nanoseconds: Option<f64>,
    /// Calls a second of two threads over those of one.
    pub(crate) two_threads: Option<f64>,
    /// The same over an inner service of a microsecond.
    pub(crate) two_threads_busy: Option<f64>,
}

/// The figures of all that was measured.
#[derive(Debug, Default)]
pub(crate) struct Results(BTreeMap<&'static str, Figures>);

impl Figures {
    /// These and their names, in the order of the columns.
    pub(crate) fn all(&self) -> [(&'static str, Option<f64>); 9] {
        [
            ("instructions", self.instructions),
            ("allocations", self.allocations),
            ("bytes", self.bytes),
            ("clock_reads", self.clock_reads),
            ("timers", self.timers),
            ("contended_writes", self.contended),
            ("nanoseconds", self.nanoseconds),
            ("two_threads", self.two_threads),
            ("two_threads_busy", self.two_threads_busy),
        ]
    }

    pub(crate) fn json(&self) -> Value {
        let known = self.all().into_iter();
        let known = known.filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
        Value::Object(known.collect::<Map<_, _>>())
    }

    /// What `self` costs above `other`; ratios stay what they are.
    fn above(self, other: Self) -> Self {
        let less = |a: Option<f64>, b: Option<f64>| Some(a? - b?);
        Self {
            instructions: less(self.instructions, other.instructions),
            allocations: less(self.allocations, other.allocations),
            bytes: less(self.bytes, other.bytes),
            clock_reads: less(self.clock_reads, other.clock_reads),
            timers: less(self.timers, other.timers),
            contended: less(self.contended, other.contended),
            nanoseconds: less(self.nanoseconds, other.nanoseconds),
            ..self
        }
    }
}

impl Results {
    /// What a case costs by itself.
    pub(crate) fn gross(&self, name: &str) -> Figures {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// What a row of the table says: a case above what is beneath it, or what a layer adds.
    pub(crate) fn net(&self, case: &Case) -> Figures {
        match case.shown {
            Shown::Itself => match case.above {
                Some(above) => self.gross(case.name).above(self.gross(above)),
                None => self.gross(case.name),
            },
            // Who meets whom in a hundred calls is too much of chance for a difference.
            Shown::WhatItLacks { of, .. } => Figures {
                contended: None,
                two_threads: None,
                two_threads_busy: None,
                ..self.gross(of).above(self.gross(case.name))
            },
        }
    }

    pub(crate) fn json(&self) -> Value {
        let cases = self.0.iter();
        let cases = cases.map(|(name, figures)| ((*name).to_owned(), figures.json()));
        Value::Object(cases.collect())
    }

    #[cfg(test)]
    pub(crate) fn with(mut self, name: &'static str, figures: Figures) -> Self {
        self.0.insert(name, figures);
        self
    }
}

/// Builds and runs binaries of `tower-mesh-bench`.
#[derive(Debug)]
pub(crate) struct Lab<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) valgrind: &'a Valgrind,
}

impl Lab<'_> {
    /// Builds binaries with the committed profile and nothing but their own features: what tests of other packages
    /// switch on in tokio costs every call.
    pub(crate) fn build(&self, binaries: &[&str], peers: bool) -> Result<(), String> {
        if binaries.is_empty() {
            return Ok(());
        }
        let package = [
            "build",
            "--profile",
            "bench",
            "--package",
            "tower-mesh-bench",
        ];
        let mut command = self.workspace.cargo(package);
        for binary in binaries {
            command.args(["--bin", binary]);
        }
        if peers {
            command.args(["--features", "peers"]);
        }
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err("the cases do not compile".to_owned()),
            Err(error) => Err(format!("cannot run cargo: {error}")),
        }
    }

    /// Counts what repeats: instructions, allocations, clock reads and timers.
    pub(crate) fn count(&self, cases: &[&'static Case]) -> Result<Results, String> {
        let mut results = Results::default();
        for case in cases {
            eprintln!("counting {}", case.name);
            let figures = self
                .counts(case)
                .map_err(|error| format!("{}: {error}", case.name))?;
            results.0.insert(case.name, figures);
        }
        Ok(results)
    }

    fn counts(&self, case: &Case) -> Result<Figures, String> {
        let program = self.binary(case.binary);
        let args = |calls: &'static str| [case.args, &["--calls", calls]].concat();
        let (few, many) = (args("2000"), args("12000"));
        let executed_few = self.valgrind.callgrind(&program, &few)?;
        let executed = self.valgrind.callgrind(&program, &many)?;
        // Nothing before them: dhat is slow, and what a first call of an endpoint allocates should show, too.
        let allocations = |args: &[&str]| {
            let args = [args, &["--warm", "0"]].concat();
            self.valgrind.dhat(&program, &args)
        };
        let (allocated_few, allocated) = (allocations(&few)?, allocations(&many)?);
        // What is ours counts its injected clock; what is not has none, and asks the system.
        let (clock_reads, timers) = if case.is_peer() {
            (
                per_call(executed_few.clock_reads, executed.clock_reads),
                per_call(executed_few.timers, executed.timers),
            )
        } else {
            let counted = self.run(case, "count", &[])?;
            (
                number(&counted, "clock_reads")?,
                number(&counted, "timers")?,
            )
        };
        Ok(Figures {
            instructions: Some(per_call(executed_few.instructions, executed.instructions)),
            allocations: Some(per_call(allocated_few.blocks, allocated.blocks)),
            bytes: Some(per_call(allocated_few.bytes, allocated.bytes)),
            clock_reads: Some(clock_reads),
            timers: Some(timers),
            ..Figures::default()
        })
    }

    /// Counts the stores to what threads share, over ten endpoints: there calls meet most often.
    #[allow(clippy::cast_precision_loss)] // Counts of a second's work.
    pub(crate) fn contend(
        &self,
        cases: &[&'static Case],
        results: &mut Results,
    ) -> Result<(), String> {
        for case in cases.iter().filter(|case| !case.is_pending()) {
            eprintln!("tracing {}", case.name);
            let own = ["--endpoints", "10", "--calls", "100"];
            let args = [&["trace"], case.args, &own].concat();
            let stores = super::lackey::contended(self.valgrind, &self.binary(case.binary), &args)
                .map_err(|error| format!("{}: {error}", case.name))?;
            let figures = results.0.entry(case.name).or_default();
            figures.contended = Some(stores as f64 / (2.0 * 100.0));
        }
        Ok(())
    }

    /// Times all cases in turn, so that what else the machine does hits all of them.
    pub(crate) fn time(
        &self,
        cases: &[&'static Case],
        results: &mut Results,
    ) -> Result<(), String> {
        let mut calls: BTreeMap<&str, String> = BTreeMap::new();
        for round in 0..ROUNDS {
            eprintln!("timing, round {} of {ROUNDS}", round + 1);
            for case in cases {
                let calls = calls.entry(case.name).or_insert_with(|| "10000".to_owned());
                let timed = self.run(case, "time", &["--calls", calls])?;
                let nanoseconds = number(&timed, "ns")?;
                *calls = format!("{:.0}", (ROUND / nanoseconds).max(100.0));
                let figures = results.0.entry(case.name).or_default();
                let best = figures
                    .nanoseconds
                    .map_or(nanoseconds, |best| best.min(nanoseconds));
                figures.nanoseconds = Some(best);
            }
        }
        self.threads(cases, &calls, results)
    }

    /// Two threads beside one: the best of each in some rounds, since a machine with two cores has other things to do.
    fn threads(
        &self,
        cases: &[&'static Case],
        calls: &BTreeMap<&str, String>,
        results: &mut Results,
    ) -> Result<(), String> {
        let mut best: BTreeMap<&str, [Throughput; 2]> = BTreeMap::new();
        for round in 0..ROUNDS {
            eprintln!("two threads, round {} of {ROUNDS}", round + 1);
            for case in cases.iter().filter(|case| !case.is_pending()) {
                let [empty, busy] = best.entry(case.name).or_default();
                empty.add(&self.run(case, "threads", &["--calls", &calls[case.name]])?)?;
                busy.add(&self.run(case, "threads", &["--calls", "3000", "--busy"])?)?;
            }
        }
        for (name, [empty, busy]) in best {
            let figures = results.0.entry(cases::named(name).name).or_default();
            figures.two_threads = Some(empty.ratio());
            figures.two_threads_busy = Some(busy.ratio());
        }
        Ok(())
    }

    fn run(&self, case: &Case, mode: &str, args: &[&str]) -> Result<Value, String> {
        self.ask(case.binary, &[&[mode], case.args, args].concat())
    }

    /// Runs a binary that answers with one JSON object.
    pub(crate) fn ask(&self, binary: &str, args: &[&str]) -> Result<Value, String> {
        let mut command = Command::new(self.binary(binary));
        let answer = process::output(command.args(args))?.stdout;
        serde_json::from_str(&answer)
            .map_err(|error| format!("{binary} answered {answer:?}: {error}"))
    }

    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
        // The profile inherits from release, and shares its directory.
        self.workspace.target().join("release").join(name)
    }
}

/// The most calls a second that one thread and that two threads made.
#[derive(Clone, Copy, Debug, Default)]
struct Throughput {
    one: f64,
    two: f64,
}

impl Throughput {
    fn add(&mut self, threads: &Value) -> Result<(), String> {
        self.one = self.one.max(number(threads, "one")?);
        self.two = self.two.max(number(threads, "two")?);
        Ok(())
    }

    fn ratio(self) -> f64 {
        self.two / self.one
    }
}

#[allow(clippy::cast_precision_loss)] // Counts of seconds' work.
fn per_call(few: u64, many: u64) -> f64 {
    many.saturating_sub(few) as f64 / (MANY - FEW) as f64
}

pub(crate) fn number(object: &Value, key: &str) -> Result<f64, String> {
    let number = object[key].as_f64();
    number.ok_or_else(|| format!("no {key} in {object}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::named;

    fn instructions(instructions: f64) -> Figures {
        Figures {
            instructions: Some(instructions),
            ..Figures::default()
        }
    }

    #[test]
    fn a_row_is_a_case_above_what_is_beneath_it_or_what_the_stack_has_more() {
        let results = Results::default()
            .with("bare, http", instructions(300.0))
            .with("mesh, 1,000", instructions(1_000.0))
            .with("stack, http", instructions(900.0))
            .with("without retry, http", instructions(850.0));
        let net = |name| results.net(named(name)).instructions;
        assert_eq!(net("bare, http"), Some(300.0));
        assert_eq!(net("mesh, 1,000"), Some(700.0));
        assert_eq!(net("without retry, http"), Some(50.0));
        assert_eq!(net("without breaker, http"), None);
    }

    #[test]
    fn what_calls_cost_is_what_lies_between_two_numbers_of_calls() {
        assert!((per_call(5_000, 25_000) - 2.0).abs() < f64::EPSILON);
    }
}
