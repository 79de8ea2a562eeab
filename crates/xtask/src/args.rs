//! What the command line asks for.

use std::ffi::OsString;
use std::fmt;

use lexopt::{Arg, Parser, ValueExt};

use crate::bench::BenchOptions;

const HELP: &str = "\
The commands of this repository.

Usage: cargo xtask <COMMAND>

Commands:
  test     Checks everything that has to hold before a change lands
  bench    Measures what a call costs, beside the peers, and checks the bars
  servers  Fetches the servers that tests run against
  sim      Simulates overload and outages
  fuzz     Feeds all that reads what comes from outside with inputs that nobody thought of

`cargo xtask <COMMAND> --help` says more about a command.
";

const TEST_HELP: &str = "\
Checks everything that has to hold before a change lands, or runs the tests of one name.

Usage: cargo xtask test [OPTIONS] [FILTER]

Without FILTER, one after the other: fmt, clippy, features, tests, doctests, rustdoc, loom, deny,
quickstart, examples, storms, bars. A stage that fails does not hide what the later ones find. The
stages and their times are listed at the end; the last line counts the tests. Tests that need a
server are `#[ignore]`d; they run where every server is found, and are named as skipped elsewhere.

Arguments:
  [FILTER]  Run only the unit, integration and doc tests whose name contains FILTER;
            fails when there is none

Options:
      --require-servers  Fetch the servers that are missing, see `cargo xtask servers --help`; a test that
                         is skipped, for want of a server or for another reason, is a failure
      --long             Let tests wait for a server for as long as it would be in production: an outage
                         of 60 s, a lock delay of 15 s, an instance that is forgotten after 72 s. Without
                         it they do the same in seconds, as far as the server lets them. And let
                         restarts be as many, and bodies as long, as they are there
  -h, --help             Print this text

Exit code: 0 all is well, 1 something failed, 2 the command line makes no sense.
";

const BENCH_HELP: &str = "\
Measures what a call through the mesh costs, beside the peers, in one run.

Usage: cargo xtask bench [OPTIONS] [CASE]...
       cargo xtask bench --check
       cargo xtask bench --balance [ARGS]...

Without CASE all of them, which takes some minutes on two cores; the table is then also written to
crates/bench/results/latest.md and latest.json, and its excerpt into README.md. Valgrind, which
counts, is fetched below the target directory where it is not installed.

Arguments:
  [CASE]...  Only the cases whose name contains one of these, and what they are measured above;
             fails when there is none

Options:
      --json     Print the figures as JSON
      --check    Hold instructions, allocations, clock reads, timers and memory against the bars of
                 crates/xtask/src/bench/bars.rs; never time
      --balance  Simulate balancers on fleets of uneven servers; what follows goes to that program,
                 see `cargo xtask bench --balance --help`
  -h, --help     Print this text

Exit code: 0 all is well, 1 a bar is exceeded, no case matches or an instrument is missing,
2 the command line makes no sense.
";

const SERVERS_HELP: &str = "\
Fetches the servers that tests run against: Consul 1.8.

Usage: cargo xtask servers

One that is on the path is preferred. Others are unpacked below target/servers, from a Debian package
that apt downloads and whose checksum is pinned: no root's rights, nothing installed, no daemon
started. The mirror is the one that apt is set up with; TOWER_MESH_DEBIAN_MIRROR names another.

Options:
  -h, --help  Print this text

Exit code: 0 all are there, 1 one is not to be had, 2 the command line makes no sense.
";

const FUZZ_HELP: &str = "\
Feeds all that reads what comes from outside with inputs that nobody thought of, by libFuzzer.

Usage: cargo xtask fuzz [OPTIONS] [TARGET]...

Each run begins with the inputs in crates/fuzz/corpus, which the tests replay, and those that earlier runs
have found, below target/fuzz. An input that makes a target fail is left in crates/fuzz/artifacts; when it is
mended it belongs into the corpus. cargo-fuzz is built below the target directory where it is not
installed; a C++ compiler has to be there, a nightly one of Rust does not.

Arguments:
  [TARGET]...  Only these of the targets in crates/fuzz/fuzz_targets

Options:
      --seconds <N>  For how long each runs; 60 unless said
  -h, --help         Print this text

Exit code: 0 all is well, 1 a target failed, or cannot be built, 2 the command line makes no sense.
";

const COMMANDS: &[&str] = &["test", "bench", "servers", "sim", "fuzz"];
const FLAGS: &[&str] = &["--help"];
const TEST_FLAGS: &[&str] = &["--require-servers", "--long", "--help"];
const FUZZ_FLAGS: &[&str] = &["--seconds", "--help"];
const BENCH_FLAGS: &[&str] = &["--json", "--check", "--balance", "--help"];

/// One understood command line.
#[derive(Debug, PartialEq)]
pub(crate) enum Invocation {
    Help(&'static str),
    Test(TestOptions),
    Bench(BenchOptions),
    Servers,
    /// The simulation of overload and outages, which has a command line of its own.
    Sim(Vec<OsString>),
    Fuzz(FuzzOptions),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TestOptions {
    pub(crate) filter: Option<String>,
    pub(crate) require_servers: bool,
    pub(crate) long: bool,
}

#[derive(Debug, PartialEq)]
pub(crate) struct FuzzOptions {
    /// All if none is named.
    pub(crate) targets: Vec<String>,
    pub(crate) seconds: u32,
}

/// A command line that makes no sense, and what may have been meant.
#[derive(Debug, PartialEq)]
pub(crate) struct UsageError(String);

pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, UsageError> {
    let mut parser = Parser::from_args(args);
    match parser.next()? {
        None => Err(UsageError(format!("no command given\n\n{HELP}"))),
        Some(Arg::Short('h') | Arg::Long("help")) => Ok(Invocation::Help(HELP)),
        Some(Arg::Value(command)) => match command.string()?.as_str() {
            "test" => parse_test(parser),
            "bench" => parse_bench(parser),
            "servers" => parse_servers(parser),
            "sim" => Ok(Invocation::Sim(parser.raw_args()?.collect())),
            "fuzz" => parse_fuzz(parser),
            unknown => Err(UsageError::unknown("command", unknown, COMMANDS)),
        },
        Some(flag) => Err(UsageError::unknown("flag", &spelled(&flag), FLAGS)),
    }
}

fn parse_test(mut parser: Parser) -> Result<Invocation, UsageError> {
    let mut options = TestOptions::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Invocation::Help(TEST_HELP)),
            Arg::Long("require-servers") => options.require_servers = true,
            Arg::Long("long") => options.long = true,
            Arg::Value(value) => set_filter(&mut options, value.string()?)?,
            flag => return Err(UsageError::unknown("flag", &spelled(&flag), TEST_FLAGS)),
        }
    }
    Ok(Invocation::Test(options))
}

fn parse_bench(mut parser: Parser) -> Result<Invocation, UsageError> {
    let (mut filters, mut json, mut check) = (Vec::new(), false, false);
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Invocation::Help(BENCH_HELP)),
            Arg::Long("json") => json = true,
            Arg::Long("check") => check = true,
            Arg::Long("balance") if filters.is_empty() && !json && !check => {
                let rest = parser.raw_args()?.collect();
                return Ok(Invocation::Bench(BenchOptions::Balance(rest)));
            }
            Arg::Long("balance") => {
                return Err(UsageError("--balance comes first, and alone".to_owned()));
            }
            Arg::Value(value) => filters.push(value.string()?),
            flag => return Err(UsageError::unknown("flag", &spelled(&flag), BENCH_FLAGS)),
        }
    }
    if filters.iter().any(String::is_empty) {
        return Err(UsageError(
            "an empty CASE would match every case".to_owned(),
        ));
    }
    Ok(Invocation::Bench(match check {
        false => BenchOptions::Table { filters, json },
        true if filters.is_empty() && !json => BenchOptions::Check,
        true => return Err(UsageError("--check stands alone".to_owned())),
    }))
}

fn parse_servers(mut parser: Parser) -> Result<Invocation, UsageError> {
    match parser.next()? {
        None => Ok(Invocation::Servers),
        Some(Arg::Short('h') | Arg::Long("help")) => Ok(Invocation::Help(SERVERS_HELP)),
        Some(arg) => Err(UsageError::unknown("flag", &spelled(&arg), FLAGS)),
    }
}

fn parse_fuzz(mut parser: Parser) -> Result<Invocation, UsageError> {
    let (mut targets, mut seconds) = (Vec::new(), 60);
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Invocation::Help(FUZZ_HELP)),
            Arg::Long("seconds") => seconds = parser.value()?.parse()?,
            Arg::Value(value) => targets.push(value.string()?),
            flag => return Err(UsageError::unknown("flag", &spelled(&flag), FUZZ_FLAGS)),
        }
    }
    if seconds == 0 {
        // libFuzzer's word for "for ever".
        return Err(UsageError("--seconds 0 is no time".to_owned()));
    }
    Ok(Invocation::Fuzz(FuzzOptions { targets, seconds }))
}

fn set_filter(options: &mut TestOptions, filter: String) -> Result<(), UsageError> {
    if filter.is_empty() {
        return Err(UsageError(
            "an empty FILTER would match every test".to_owned(),
        ));
    }
    match options.filter.replace(filter) {
        None => Ok(()),
        Some(first) => Err(UsageError(format!(
            "one FILTER is enough, `{first}` is already given"
        ))),
    }
}

fn spelled(arg: &Arg<'_>) -> String {
    match arg {
        Arg::Short(letter) => format!("-{letter}"),
        Arg::Long(name) => format!("--{name}"),
        Arg::Value(value) => value.to_string_lossy().into_owned(),
    }
}

impl UsageError {
    fn unknown(what: &str, given: &str, valid: &[&str]) -> Self {
        let nearest = valid
            .iter()
            .min_by_key(|candidate| strsim::damerau_levenshtein(given, candidate));
        match nearest {
            Some(nearest) => Self(format!(
                "unknown {what} `{given}`; the nearest valid one is `{nearest}`"
            )),
            None => Self(format!("unknown {what} `{given}`")),
        }
    }
}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Invocation, String> {
        super::parse(line.split_whitespace().map(OsString::from)).map_err(|error| error.to_string())
    }

    fn test_options(line: &str) -> TestOptions {
        match parse(line) {
            Ok(Invocation::Test(options)) => options,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn test_takes_a_filter_and_a_flag_in_any_order() {
        let both = TestOptions {
            filter: Some("gate".to_owned()),
            require_servers: true,
            long: false,
        };
        let long = TestOptions {
            long: true,
            ..both.clone()
        };
        assert_eq!(test_options("test --long gate --require-servers"), long);
        assert_eq!(test_options("test"), TestOptions::default());
        assert_eq!(test_options("test gate --require-servers"), both);
        assert_eq!(test_options("test --require-servers gate"), both);
    }

    #[test]
    fn a_filter_may_look_like_a_flag_after_two_dashes() {
        assert_eq!(
            test_options("test -- --help").filter.as_deref(),
            Some("--help")
        );
    }

    #[test]
    fn bench_takes_cases_or_checks_or_hands_on_what_follows() {
        let bench = |line: &str| match parse(line) {
            Ok(Invocation::Bench(options)) => options,
            other => panic!("{line}: {other:?}"),
        };
        let table = |filters: &[&str], json| BenchOptions::Table {
            filters: filters.iter().map(|&filter| filter.to_owned()).collect(),
            json,
        };
        assert_eq!(bench("bench"), table(&[], false));
        assert_eq!(
            bench("bench mesh --json tower"),
            table(&["mesh", "tower"], true)
        );
        assert_eq!(bench("bench --check"), BenchOptions::Check);
        let rest = ["--seed", "7"].map(OsString::from).to_vec();
        assert_eq!(
            bench("bench --balance --seed 7"),
            BenchOptions::Balance(rest)
        );
        assert!(parse("bench --check mesh").is_err());
        assert!(parse("bench --json --balance").is_err());
        assert_eq!(
            parse("bench --chekc").expect_err("not valid"),
            "unknown flag `--chekc`; the nearest valid one is `--check`"
        );
    }

    #[test]
    fn sim_hands_on_what_follows() {
        let args = ["--seeds", "7", "--help"].map(OsString::from).to_vec();
        assert_eq!(parse("sim --seeds 7 --help"), Ok(Invocation::Sim(args)));
        assert_eq!(parse("sim"), Ok(Invocation::Sim(Vec::new())));
    }

    #[test]
    fn fuzz_takes_targets_and_a_time() {
        let fuzz = |targets: &[&str], seconds| {
            let targets = targets.iter().map(|&target| target.to_owned()).collect();
            Ok(Invocation::Fuzz(FuzzOptions { targets, seconds }))
        };
        assert_eq!(parse("fuzz"), fuzz(&[], 60));
        assert_eq!(
            parse("fuzz load --seconds 5 name"),
            fuzz(&["load", "name"], 5)
        );
        for wrong in ["fuzz --seconds 0", "fuzz --seconds x", "fuzz --second 1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse("fuzz --help"), Ok(Invocation::Help(FUZZ_HELP)));
    }

    #[test]
    fn servers_takes_nothing() {
        assert_eq!(parse("servers"), Ok(Invocation::Servers));
        assert!(parse("servers consul").is_err());
    }

    #[test]
    fn every_command_has_its_own_help() {
        assert_eq!(parse("--help"), Ok(Invocation::Help(HELP)));
        assert_eq!(parse("-h"), Ok(Invocation::Help(HELP)));
        assert_eq!(parse("test gate --help"), Ok(Invocation::Help(TEST_HELP)));
        assert_eq!(parse("servers --help"), Ok(Invocation::Help(SERVERS_HELP)));
        assert_eq!(parse("bench --help"), Ok(Invocation::Help(BENCH_HELP)));
    }

    #[test]
    fn a_typing_mistake_is_told_what_was_near() {
        let error = |line: &str| parse(line).expect_err("not valid");
        assert_eq!(
            error("tset"),
            "unknown command `tset`; the nearest valid one is `test`"
        );
        assert_eq!(
            error("test --require-server"),
            "unknown flag `--require-server`; the nearest valid one is `--require-servers`"
        );
        assert_eq!(
            error("-x"),
            "unknown flag `-x`; the nearest valid one is `--help`"
        );
    }

    #[test]
    fn what_is_left_over_or_missing_is_an_error() {
        assert!(parse("").is_err());
        assert!(parse("test one two").is_err());
        assert!(parse("test --require-servers=yes").is_err());
        assert!(super::parse(["test".into(), OsString::new()]).is_err());
    }
}
