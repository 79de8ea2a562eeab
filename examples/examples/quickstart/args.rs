//! What the command line says.

use std::{ffi::OsString, ops::RangeInclusive, time::Duration};

use lexopt::{
    Parser,
    prelude::{Long, Short, ValueExt},
};

pub(crate) const HELP: &str = "\
Ten axum servers on loopback ports; at any time at least two of them are slow, failing, dead or coming back.
The same calls go to them twice, at a steady rate: through the mesh, and by round robin with a bare hyper client.

Usage: quickstart [--seconds N] [--rate N] [--json]

  --seconds N   how long calls are sent, 1 to 3600; the faults spread over it   [10]
  --rate N      calls a second, each way, 1 to 10000                            [400]
  --json        the last line of stdout is one JSON object, all else goes to stderr
  -h, --help    this text

A call is a GET with a second to answer. It succeeds if a 2xx response has come by then, to the end of its body.
In the JSON, `success` and `round_robin_success` are shares of calls (0 to 1), `p50_ms` and `p99_ms` are of
successful calls through the mesh, from when they were due, retries included.

The exit code is 0 if at least 99.9 % succeed through the mesh and less than 99 % by round robin.
";

/// What to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) seconds: u32,
    pub(crate) rate: u32,
    pub(crate) json: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            seconds: 10,
            rate: 400,
            json: false,
        }
    }
}

impl Args {
    /// Reads the command line, without the program's name; `None` if it asks for help.
    pub(crate) fn parse<I>(args: I) -> Result<Option<Self>, lexopt::Error>
    where
        I: IntoIterator<Item: Into<OsString>>,
    {
        let mut parsed = Self::default();
        let mut parser = Parser::from_args(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Long("seconds") => parsed.seconds = number(&mut parser, "--seconds", 1..=3600)?,
                Long("rate") => parsed.rate = number(&mut parser, "--rate", 1..=10_000)?,
                Long("json") => parsed.json = true,
                Short('h') | Long("help") => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(parsed))
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// How many calls are sent each way.
    pub(crate) fn calls(&self) -> u32 {
        self.seconds * self.rate
    }
}

fn number(
    parser: &mut Parser,
    option: &str,
    range: RangeInclusive<u32>,
) -> Result<u32, lexopt::Error> {
    let number = parser.value()?.parse()?;
    if range.contains(&number) {
        Ok(number)
    } else {
        let (min, max) = range.into_inner();
        Err(format!("{option} takes a number from {min} to {max}, not {number}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_required_and_everything_can_be_said() {
        let no_args: [&str; 0] = [];
        assert_eq!(Args::parse(no_args).unwrap(), Some(Args::default()));
        let said = Args::parse(["--json", "--seconds", "3", "--rate=50"]).unwrap();
        let expected = Args {
            seconds: 3,
            rate: 50,
            json: true,
        };
        assert_eq!(said, Some(expected));
        assert_eq!(expected.calls(), 150);
        assert_eq!(Args::parse(["--help"]).unwrap(), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (args, reason) in [
            (
                vec!["--rate", "0"],
                "--rate takes a number from 1 to 10000, not 0",
            ),
            (
                vec!["--seconds", "4000"],
                "--seconds takes a number from 1 to 3600, not 4000",
            ),
            (vec!["--seconds"], "missing argument for option '--seconds'"),
            (vec!["--sconds", "3"], "invalid option '--sconds'"),
        ] {
            assert_eq!(Args::parse(args).unwrap_err().to_string(), reason);
        }
    }
}
