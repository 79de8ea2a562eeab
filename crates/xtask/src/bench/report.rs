//! The table, as Markdown and as JSON.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};

use super::cases::{Case, Group, Shown};
use super::growth::Growth;
use super::measure::{Figures, Results};
use super::valgrind::Valgrind;
use crate::process;
use crate::workspace::Workspace;

/// Where and with what it was measured.
#[derive(Debug)]
pub(crate) struct Origin {
    machine: String,
    date: String,
    versions: Vec<(String, String)>,
}

/// The peers and what they stand on: what the figures of other releases may differ from.
const VERSIONED: [&str; 11] = [
    "failsafe",
    "http",
    "hyper",
    "recloser",
    "seatbelt",
    "tokio",
    "tower",
    "tower-resilience-bulkhead",
    "tower-resilience-circuitbreaker",
    "tower-resilience-retry",
    "tower-resilience-timelimiter",
];

impl Origin {
    pub(crate) fn of(workspace: &Workspace, valgrind: &Valgrind) -> Result<Self, String> {
        let line = |program: &str, args: &[&str]| {
            let output = process::output(Command::new(program).args(args));
            output.map_or_else(
                |_| "unknown".to_owned(),
                |output| output.stdout.trim().to_owned(),
            )
        };
        let lock = std::fs::read_to_string(workspace.root().join("Cargo.lock"))
            .map_err(|error| error.to_string())?;
        let mut versions = vec![
            ("rustc".to_owned(), line("rustc", &["--version"])),
            ("valgrind".to_owned(), valgrind.version()),
        ];
        versions.extend(
            VERSIONED
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), locked(&lock, name)?.to_owned()))),
        );
        Ok(Self {
            machine: machine(),
            date: line("date", &["-u", "+%Y-%m-%d"]),
            versions,
        })
    }

    fn sentence(&self) -> String {
        let versions: Vec<_> = self
            .versions
            .iter()
            .map(|(name, version)| match version.strip_prefix(&**name) {
                // `rustc 1.95.0 (…)`, `valgrind-3.19.0`
                Some(rest) => format!("{name} {}", rest.trim_start_matches([' ', '-'])),
                None => format!("{name} {version}"),
            })
            .collect();
        format!("{}, {}; {}", self.machine, self.date, versions.join(", "))
    }

    fn json(&self) -> Value {
        let versions = self.versions.iter();
        let versions = versions.map(|(name, version)| (name.clone(), version.clone().into()));
        json!({
            "machine": self.machine,
            "date": self.date,
            "versions": Value::Object(versions.collect()),
        })
    }
}

/// The newest version of a package in a lock file.
fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let entry = format!("name = \"{name}\"\nversion = \"");
    let at = lock.rfind(&entry)? + entry.len();
    lock[at..].split('"').next()
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("an unknown processor", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{cores} cores of {model}")
}

pub(crate) fn json(origin: &Origin, results: &Results, growth: &Growth) -> Value {
    let endpoints: Vec<_> = growth
        .endpoints
        .iter()
        .map(|row| {
            json!({
                "endpoints": row.number,
                "bytes": row.bytes,
                "patch_us": row.patch_us,
                "restate_us": row.restate_us,
                "replace_us": row.replace_us,
                "status_us": row.status_us,
            })
        })
        .collect();
    let services: Vec<_> = growth
        .services
        .iter()
        .map(|row| {
            json!({
                "services": row.number,
                "bytes": row.bytes,
                "ready_us": row.ready_us,
                "status_us": row.status_us,
            })
        })
        .collect();
    json!({
        "origin": origin.json(),
        "cases": results.json(),
        "growth": {
            "start_us": growth.start_us,
            "first_start_us": growth.first_start_us,
            "bytes_per_endpoint": growth.bytes_per_endpoint,
            "endpoints": endpoints,
            "services": services,
        },
    })
}

const READING: &str = "\
What one call costs **above the plain service** that it ends in (the first rows, which are whole), called in the same way: \
`bare` with a number, `bare, http` with an empty `http::Request`, whose response's body is read to its end. \
`pending once` is what every call over a network is; the runtime's own work is in the bare row.

- **instructions** by callgrind, **allocations** and **bytes** by dhat: (12,000 calls - 2,000 calls) / 10,000, one binary \
a case, fat LTO, one codegen unit. They repeat.
- **clock reads** and **timers** of ours by the injected clock; of the peers by callgrind, as calls of `clock_gettime` and \
of tokio's registration of timers.
- **contended writes**: stores to cache lines to which the calls of another thread store, too, by valgrind's lackey, over ten endpoints; \
memory of a thread's own is not among them.
- **x bare**: nanoseconds of the whole call over those of the plain service, all cases in turn, the best of several rounds. \
Not comparable between `bare` and `bare, http`.
- **two threads**: calls a second of two threads over those of one, on one shared client; **1 us**: over an inner service \
that works for a microsecond. The rows of `bare` say what the machine gives.
";

/// The whole table.
pub(crate) fn markdown(
    origin: &Origin,
    cases: &[&'static Case],
    results: &Results,
    growth: &Growth,
) -> String {
    let mut text = format!(
        "# What a call costs\n\n`cargo xtask bench` wrote this: {}.\n\n{READING}\n",
        origin.sentence()
    );
    text += &table(cases, results);
    text += &grown(growth);
    text
}

/// The rows of calls.
pub(crate) fn table(cases: &[&'static Case], results: &Results) -> String {
    let mut text = "| | instructions | allocations | bytes | clock reads | timers | contended writes | x bare | two threads | 1 us |\n\
                    |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for group in Group::ALL {
        let rows: Vec<_> = cases.iter().filter(|case| case.group == group).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = writeln!(text, "| **{}** | | | | | | | | | |", group.title());
        for case in rows {
            let _ = writeln!(
                text,
                "| {} | {} |",
                title(case),
                row(case, results).join(" | ")
            );
        }
        if matches!(group, Group::Inside | Group::InsideHttp) {
            text += "| balance | – | | | | | | | | |\n";
        }
    }
    text += "\nInside the mesh a layer's row is the whole stack less the stack without it. The balancer cannot be left out: \
             what is beneath it makes services for endpoints, and what is above it calls one.\n\
             \nWhat a POST with headers and 1 KiB costs above one of the same client bare is a call (`mesh, 1,000`), and with it: \
             a copy of the headers for another attempt (one allocation; of the body it is a share of the same bytes), what is \
             left of the time, put into a header (the other allocation), the authority, which is rewritten by parts, looking \
             into headers that are there, and the end of the body, where the clock is read once more. By authority, the name \
             of the service and its client have to be found, too.\n";
    text
}

fn title(case: &Case) -> &str {
    match case.shown {
        Shown::Itself => case.name,
        Shown::WhatItLacks { layer, .. } => layer,
    }
}

pub(crate) fn row(case: &Case, results: &Results) -> [String; 9] {
    let net = results.net(case);
    let bare = case.above.map(|above| results.gross(above));
    let times_bare = match (case.shown, bare) {
        (
            Shown::Itself,
            Some(Figures {
                nanoseconds: Some(bare),
                ..
            }),
        ) => results
            .gross(case.name)
            .nanoseconds
            .map(|whole| whole / bare),
        _ => None,
    };
    let whole = |figure: Option<f64>| figure.map_or("–".to_owned(), |figure| grouped(figure, 0));
    let few = |figure: Option<f64>| figure.map_or("–".to_owned(), short);
    [
        whole(net.instructions),
        few(net.allocations),
        whole(net.bytes),
        few(net.clock_reads),
        few(net.timers),
        few(net.contended),
        times_bare.map_or("–".to_owned(), |times| format!("{times:.1}")),
        net.two_threads
            .map_or("–".to_owned(), |ratio| format!("{ratio:.2}")),
        net.two_threads_busy
            .map_or("–".to_owned(), |ratio| format!("{ratio:.2}")),
    ]
}

/// A count that is mostly a small whole number.
fn short(figure: f64) -> String {
    let figure = if figure.abs() < 0.005 { 0.0 } else { figure };
    if (figure - figure.round()).abs() < 0.005 {
        format!("{figure:.0}")
    } else {
        format!("{figure:.2}")
    }
}

/// `1,234.5`
fn grouped(figure: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", figure.abs());
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut groups = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            groups.push(',');
        }
        groups.push(digit);
    }
    let sign = if figure < 0.0 && text.contains(|c: char| c.is_ascii_digit() && c != '0') {
        "-"
    } else {
        ""
    };
    format!("{sign}{groups}{fraction}")
}

fn grown(growth: &Growth) -> String {
    let mut text = "\n## As it grows\n\nOne service over so many endpoints, without connections: memory by a counting \
                    allocator, times in microseconds, the best of eleven.\n\n\
                    | endpoints | bytes | `Patch` of 1 | `Replace`, one has moved | `Replace`, all have | `status()` |\n\
                    |---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    let us = |figure: f64| grouped(figure, usize::from(figure < 100.0));
    for row in &growth.endpoints {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            grouped_number(row.number),
            grouped(row.bytes, 0),
            us(row.patch_us),
            us(row.restate_us),
            us(row.replace_us),
            us(row.status_us)
        );
    }
    text += "\nServices with ten endpoints each, from a mesh that knows none of them to the first answer of all.\n\n\
             | services | bytes | first answers | `status()` |\n|---:|---:|---:|---:|\n";
    for row in &growth.services {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            grouped_number(row.number),
            grouped(row.bytes, 0),
            us(row.ready_us),
            us(row.status_us)
        );
    }
    if let (Some(bytes), Some(start), Some(first)) = (
        growth.bytes_per_endpoint,
        growth.start_us,
        growth.first_start_us,
    ) {
        let _ = writeln!(
            text,
            "\nOne more endpoint takes {bytes:.0} bytes. A mesh starts in {} us; the first of a process in {} us, since it \
             measures how fast the processor's counter of time runs.",
            us(start),
            us(first)
        );
    }
    text
}

#[allow(clippy::cast_precision_loss)] // Numbers of endpoints.
fn grouped_number(number: u64) -> String {
    grouped(number as f64, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(1_234_567.0, 0), "1,234,567");
        assert_eq!(grouped(999.96, 1), "1,000.0");
        assert_eq!(grouped(-1_234.0, 0), "-1,234");
        assert_eq!(grouped(-0.2, 0), "0");
        assert_eq!(short(2.0), "2");
        assert_eq!(short(-0.001), "0");
        assert_eq!(short(0.25), "0.25");
    }

    #[test]
    fn a_version_is_the_locked_one() {
        let lock = "[[package]]\nname = \"tower\"\nversion = \"0.5.3\"\n[[package]]\nname = \"tower-layer\"\nversion = \"0.3.3\"\n";
        assert_eq!(locked(lock, "tower"), Some("0.5.3"));
        assert_eq!(locked(lock, "hyper"), None);
    }
}
