//! The end of a run: one line per stage, the verdict, and how many tests there were.

use std::fmt;
use std::time::Duration;

use crate::results::Counts;

/// How a stage ended, and the tests it ran.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) counts: Counts,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    /// Failed in a way that leaves nothing to find for other stages that compile the workspace.
    Broken(String),
    Skipped(String),
}

#[derive(Debug)]
struct Row {
    stage: &'static str,
    took: Duration,
    outcome: Outcome,
}

#[derive(Debug)]
pub(crate) struct Summary {
    rows: Vec<Row>,
    limit: Duration,
}

impl Outcome {
    pub(crate) fn passed() -> Self {
        Verdict::Passed.into()
    }

    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Verdict::Failed(why.into()).into()
    }

    pub(crate) fn broken(why: impl Into<String>) -> Self {
        Verdict::Broken(why.into()).into()
    }

    pub(crate) fn skipped(why: impl Into<String>) -> Self {
        Verdict::Skipped(why.into()).into()
    }

    pub(crate) fn with(self, counts: Counts) -> Self {
        Self { counts, ..self }
    }

    /// Counts tests that could not come to a result as a failed one: "0 failed" would be a lie.
    pub(crate) fn with_one_failed(mut self) -> Self {
        self.counts.failed += 1;
        self
    }
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            counts: Counts::default(),
        }
    }
}

impl Summary {
    /// An empty one, of a run that may take `limit` in all.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            rows: Vec::new(),
            limit,
        }
    }

    pub(crate) fn add(&mut self, stage: &'static str, took: Duration, outcome: Outcome) {
        self.rows.push(Row {
            stage,
            took,
            outcome,
        });
    }

    /// Every stage passed, none was skipped, and in time.
    pub(crate) fn passed(&self) -> bool {
        self.in_time()
            && self
                .rows
                .iter()
                .all(|row| row.outcome.verdict == Verdict::Passed)
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut all = Counts::default();
        self.rows.iter().for_each(|row| all += row.outcome.counts);
        all
    }

    fn took(&self) -> Duration {
        self.rows.iter().map(|row| row.took).sum()
    }

    fn in_time(&self) -> bool {
        self.took() <= self.limit
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        let verdict = if self.passed() { "ok" } else { "FAILED" };
        write!(f, "{:<10} {:>9}  {verdict}", "total", clock(self.took()))?;
        if !self.in_time() {
            write!(f, "  above the limit of {}", clock(self.limit))?;
        }
        write!(f, "\n\n{}", self.counts())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { verdict, counts } = &self.outcome;
        let (verdict, why) = match verdict {
            Verdict::Passed => ("ok", None),
            Verdict::Failed(why) | Verdict::Broken(why) => ("FAILED", Some(why.clone())),
            Verdict::Skipped(why) => ("skipped", Some(why.clone())),
        };
        let counts = (*counts != Counts::default()).then(|| counts.to_string());
        let remarks: Vec<_> = counts.into_iter().chain(why).collect();
        let line = format!(
            "{:<10} {:>9}  {verdict:<7}  {}",
            self.stage,
            clock(self.took),
            remarks.join(": ")
        );
        f.write_str(line.trim_end())
    }
}

/// `7.1 s`, `2 m 05 s`
fn clock(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        seconds => format!("{} m {:02} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2400);

    fn tests(passed: usize, failed: usize) -> Counts {
        Counts {
            passed,
            failed,
            skipped: 0,
        }
    }

    #[test]
    fn a_good_run_reads_as_a_table() {
        let mut summary = Summary::new(LIMIT);
        summary.add("fmt", Duration::from_millis(840), Outcome::passed());
        summary.add(
            "tests",
            Duration::from_secs(125),
            Outcome::passed().with(tests(40, 0)),
        );
        summary.add(
            "doctests",
            Duration::from_secs(61),
            Outcome::passed().with(tests(2, 0)),
        );
        assert!(summary.passed());
        let text = summary.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "fmt            0.8 s  ok",
                "tests       2 m 05 s  ok       40 passed, 0 failed",
                "doctests    1 m 01 s  ok       2 passed, 0 failed",
                "total       3 m 06 s  ok",
                "",
                "42 passed, 0 failed",
            ]
        );
    }

    #[test]
    fn one_bad_stage_fails_the_run_and_says_why() {
        let mut summary = Summary::new(LIMIT);
        summary.add(
            "clippy",
            Duration::ZERO,
            Outcome::broken("does not compile"),
        );
        summary.add("tests", Duration::ZERO, Outcome::skipped("clippy"));
        let text = summary.to_string();
        assert!(!summary.passed());
        assert!(text.contains("FAILED   does not compile"), "{text}");
        assert!(text.contains("skipped  clippy"), "{text}");
        assert!(text.ends_with("\n0 passed, 0 failed"), "{text}");
    }

    #[test]
    fn a_skipped_stage_is_not_a_passed_one() {
        let mut summary = Summary::new(LIMIT);
        summary.add("deny", Duration::ZERO, Outcome::skipped("no time left"));
        assert!(!summary.passed());
    }

    #[test]
    fn more_time_than_the_limit_fails_the_run() {
        let mut summary = Summary::new(LIMIT);
        summary.add(
            "tests",
            LIMIT + Duration::from_secs(1),
            Outcome::passed().with(tests(1, 0)),
        );
        assert!(!summary.passed());
        assert!(
            summary.to_string().contains("above the limit of 40 m 00 s"),
            "{summary}"
        );
    }
}
