//! What test runners report, read from what they print.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::AddAssign;

use crate::process::Keep;

/// Who runs the tests, and thereby what its output looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Runner {
    /// `cargo test`, one summary for each binary.
    Libtest,
    /// `cargo nextest`, one summary in all.
    Nextest,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Results {
    pub(crate) counts: Counts,
    /// The tests that were looked at, by name.
    pub(crate) names: BTreeSet<String>,
}

impl Runner {
    /// The stream on which it says how the tests went.
    pub(crate) fn reports_on(self) -> Keep {
        match self {
            Self::Libtest => Keep::Stdout,
            Self::Nextest => Keep::Stderr,
        }
    }

    /// Reads a run; `None` when it came to no result, as when the tests do not compile.
    pub(crate) fn results(self, output: &str) -> Option<Results> {
        let (counts, name): (_, fn(&str) -> Option<&str>) = match self {
            Self::Libtest => (
                output.lines().filter_map(libtest_counts).reduce(sum)?,
                libtest_name,
            ),
            Self::Nextest => (output.lines().rev().find_map(nextest_counts)?, nextest_name),
        };
        let names = output.lines().filter_map(name).map(str::to_owned).collect();
        Some(Results { counts, names })
    }
}

impl Counts {
    pub(crate) fn run(self) -> usize {
        self.passed + self.failed
    }

    /// Adds one part of a summary, such as `3 passed (1 slow)` or `1 timed out`.
    fn add(&mut self, part: &str) {
        let Some((number, what)) = part.trim().split_once(' ') else {
            return;
        };
        let Ok(number) = number.parse::<usize>() else {
            return;
        };
        match what {
            _ if what.starts_with("passed") => self.passed += number,
            _ if ["failed", "timed out", "exec failed"]
                .iter()
                .any(|bad| what.starts_with(bad)) =>
            {
                self.failed += number;
            }
            _ if what.starts_with("ignored") || what.starts_with("skipped") => {
                self.skipped += number
            }
            _ => {} // measured, filtered out, slow, leaky: not a verdict
        }
    }

    fn read<'a>(parts: impl Iterator<Item = &'a str>) -> Self {
        let mut counts = Self::default();
        parts.for_each(|part| counts.add(part));
        counts
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        match self.skipped {
            0 => Ok(()),
            skipped => write!(f, ", {skipped} skipped"),
        }
    }
}

fn sum(mut one: Counts, other: Counts) -> Counts {
    one += other;
    one
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; …`. Indented, it is a test quoting it.
fn libtest_counts(line: &str) -> Option<Counts> {
    let (_, parts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    Some(Counts::read(parts.split(';')))
}

/// `     Summary [   0.202s] 4 tests run: 3 passed (1 slow), 1 failed, 1 skipped`
fn nextest_counts(line: &str) -> Option<Counts> {
    let (_, parts) = line
        .trim_start()
        .strip_prefix("Summary [")?
        .split_once(" run: ")?;
    Some(Counts::read(parts.split(',')))
}

/// `test gate::opens ... ok`
fn libtest_name(line: &str) -> Option<&str> {
    let (name, _) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    Some(name)
}

/// `        PASS [   0.016s] (1/4) tower-mesh-core gate::opens`
fn nextest_name(line: &str) -> Option<&str> {
    let (_, timed) = line.trim_start().split_once(" [")?;
    let (_, numbered) = timed.split_once("] (")?;
    let (_, name) = numbered.split_once(") ")?;
    Some(name.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: usize, failed: usize, skipped: usize) -> Counts {
        Counts {
            passed,
            failed,
            skipped,
        }
    }

    fn names(results: &Results) -> Vec<&str> {
        results.names.iter().map(String::as_str).collect()
    }

    #[test]
    fn libtest_summaries_of_all_binaries_are_added_up() {
        let output = "
running 4 tests
test t::a ... ok
test t::later ... ignored, needs a server
test t::sp - should panic ... ok
test t::bad ... FAILED

failures:

---- t::bad stdout ----
    test result: ok. 100 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.09s

running 1 test
test it_does_a_thing ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s
";
        let results = Runner::Libtest.results(output).unwrap();
        assert_eq!(results.counts, counts(3, 1, 1));
        assert_eq!(
            names(&results),
            [
                "it_does_a_thing",
                "t::a",
                "t::bad",
                "t::later",
                "t::sp - should panic"
            ]
        );
    }

    #[test]
    fn nextest_has_one_summary() {
        let output = "\
    Starting 4 tests across 3 binaries (1 test skipped)
        PASS [   0.016s] (1/4) demo t::a
        FAIL [   0.199s] (2/4) demo t::bad
  stdout \u{2500}\u{2500}\u{2500}
    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.19s
     TIMEOUT [ 240.005s] (3/4) demo::x hangs
     Summary [   0.202s] 4 tests run: 1 passed (1 slow, 1 leaky), 1 failed, 1 timed out, 1 exec failed, 2 skipped
        FAIL [   0.199s] (2/4) demo t::bad
error: test run failed
";
        let results = Runner::Nextest.results(output).unwrap();
        assert_eq!(results.counts, counts(1, 3, 2));
        assert_eq!(
            names(&results),
            ["demo t::a", "demo t::bad", "demo::x hangs"]
        );
    }

    #[test]
    fn a_run_that_did_not_come_to_a_summary_has_no_results() {
        for runner in [Runner::Libtest, Runner::Nextest] {
            assert_eq!(
                runner.results("error: could not compile `demo` (lib) due to 1 previous error\n"),
                None
            );
        }
    }

    #[test]
    fn nothing_to_run_is_a_result() {
        let none = "     Summary [   0.000s] 0 tests run: 0 passed, 5 skipped\n";
        assert_eq!(
            Runner::Nextest.results(none).unwrap().counts,
            counts(0, 0, 5)
        );
    }

    #[test]
    fn skipped_tests_are_mentioned_only_when_there_are_some() {
        assert_eq!(counts(3, 1, 0).to_string(), "3 passed, 1 failed");
        assert_eq!(counts(3, 0, 2).to_string(), "3 passed, 0 failed, 2 skipped");
    }
}
