//! What is said at the end.

use std::{fmt, net::SocketAddr, time::Duration};

use serde_json::{Value, json};

use crate::{
    args::Args,
    counts::Counts,
    record::{Record, share},
    script,
};

/// At least this share of calls has to succeed through the mesh …
const MESH_AT_LEAST: f64 = 0.999;
/// … where less than this one does by round robin: otherwise there was nothing to protect from.
const ROUND_ROBIN_BELOW: f64 = 0.99;

/// A run that is over.
pub(crate) struct Report {
    pub(crate) args: Args,
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) mesh: Record,
    pub(crate) round_robin: Record,
    pub(crate) counts: Counts,
}

impl Report {
    pub(crate) fn passed(&self) -> bool {
        passed(
            self.mesh.summary().success(),
            self.round_robin.summary().success(),
        )
    }

    /// The keys of `HELP` and what a script may want besides.
    pub(crate) fn json(&self) -> Value {
        let (mesh, round_robin) = (self.mesh.summary(), self.round_robin.summary());
        json!({
            "passed": self.passed(),
            "seconds": self.args.seconds,
            "rate": self.args.rate,
            "servers": self.servers.len(),
            "calls": mesh.calls,
            "success": mesh.success(),
            "round_robin_success": round_robin.success(),
            "p50_ms": millis(mesh.latency(50)),
            "p99_ms": millis(mesh.latency(99)),
            "round_robin_p50_ms": millis(round_robin.latency(50)),
            "round_robin_p99_ms": millis(round_robin.latency(99)),
            "retries": self.counts.retries,
            "retries_refused": self.counts.retries_refused,
            "calls_refused": self.counts.calls_refused,
        })
    }
}

fn passed(mesh: f64, round_robin: f64) -> bool {
    mesh >= MESH_AT_LEAST && round_robin < ROUND_ROBIN_BELOW
}

fn millis(latency: Option<Duration>) -> Option<f64> {
    latency.map(|latency| (latency.as_secs_f64() * 1e4).round() / 10.0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_endpoints(f)?;
        writeln!(f)?;
        write_way(f, "through the mesh", &self.mesh)?;
        write_way(f, "round robin", &self.round_robin)?;
        let counts = &self.counts;
        writeln!(
            f,
            "\n{} retries, {} more refused by the retry budget; {} calls refused by the mesh",
            counts.retries, counts.retries_refused, counts.calls_refused,
        )?;
        write!(f, "{}", self.verdict())
    }
}

impl Report {
    fn write_endpoints(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:18}{:^43}     {:^29}",
            "", "through the mesh", "round robin"
        )?;
        writeln!(
            f,
            "{:5}  {:8}  {:>8} {:>7} {:>7} {:>7}  {:9}     {:>5} {:>7} {:>7} {:>7}",
            "port",
            "suffered",
            "attempts",
            "ok %",
            "p50 ms",
            "p99 ms",
            "breaker",
            "calls",
            "ok %",
            "p50 ms",
            "p99 ms",
        )?;
        for (i, &server) in self.servers.iter().enumerate() {
            let answered = self.mesh.summary_of(server);
            let round_robin = self.round_robin.summary_of(server);
            let counts = self.counts.of_server(server);
            let (attempts, failures) = counts.map_or((0, 0), |e| (e.attempts, e.failures));
            let successes = attempts.saturating_sub(failures);
            writeln!(
                f,
                "{:5}  {:8}  {:>8} {:>7} {:>7} {:>7}  {:9}     {:>5} {:>7} {:>7} {:>7}",
                server.port(),
                script::of_server(i, self.args.duration()),
                attempts,
                percent(share(successes as usize, attempts as usize)),
                text(answered.latency(50)),
                text(answered.latency(99)),
                counts.map_or("-", |e| &e.breaker),
                round_robin.calls,
                percent(round_robin.success()),
                text(round_robin.latency(50)),
                text(round_robin.latency(99)),
            )?;
        }
        writeln!(f, "{:7}{}", "", script::LEGEND)
    }

    fn verdict(&self) -> &'static str {
        if self.passed() {
            "passed: at least 99.9 % through the mesh, less than 99 % by round robin"
        } else {
            "FAILED: that takes at least 99.9 % through the mesh, and less than 99 % by round robin"
        }
    }
}

fn write_way(f: &mut fmt::Formatter<'_>, name: &str, record: &Record) -> fmt::Result {
    let summary = record.summary();
    writeln!(
        f,
        "{name:16}  {} calls, {} % succeeded, p50 {} ms, p99 {} ms",
        summary.calls,
        percent(summary.success()),
        text(summary.latency(50)),
        text(summary.latency(99)),
    )?;
    for (reason, count) in record.failures().into_iter().take(5) {
        writeln!(f, "{:18}{count} x {reason}", "")?;
    }
    Ok(())
}

/// Rounded down: 100.00 is all of them.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2}", (share * 1e4).floor() / 100.0)
}

/// In milliseconds.
fn text(latency: Option<Duration>) -> String {
    millis(latency).map_or_else(|| "-".to_owned(), |millis| format!("{millis:.1}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ways::Answer;

    fn record(successes: usize, failures: usize) -> Record {
        let record = Record::default();
        let by = Some(SocketAddr::from(([127, 0, 0, 1], 1)));
        for i in 0..successes + failures {
            let result = if i < successes {
                Ok(())
            } else {
                Err("status 500".to_owned())
            };
            record.add(Answer { by, result }, Duration::from_millis(4));
        }
        record
    }

    fn report(mesh: Record, round_robin: Record) -> Report {
        Report {
            args: Args::default(),
            servers: vec![SocketAddr::from(([127, 0, 0, 1], 1))],
            mesh,
            round_robin,
            counts: Counts {
                retries: 12,
                retries_refused: 3,
                calls_refused: 0,
                ..Counts::default()
            },
        }
    }

    #[test]
    fn it_passes_only_if_the_mesh_holds_where_round_robin_does_not() {
        assert!(report(record(999, 1), record(989, 11)).passed());
        assert!(!report(record(998, 2), record(989, 11)).passed());
        assert!(!report(record(1000, 0), record(990, 10)).passed());
        assert!(!report(record(0, 0), record(0, 0)).passed());
    }

    #[test]
    fn json_has_the_keys_that_scripts_read() {
        let json = report(record(999, 1), record(80, 20)).json();
        for (key, value) in [
            ("calls", json!(1000)),
            ("success", json!(0.999)),
            ("round_robin_success", json!(0.8)),
            ("p50_ms", json!(4.0)),
            ("p99_ms", json!(4.0)),
            ("retries", json!(12)),
        ] {
            assert_eq!(json[key], value, "{key}");
        }
        assert!(!json.to_string().contains('\n'));
    }

    #[test]
    fn what_is_rounded_never_hides_a_failure() {
        assert_eq!(percent(0.999_999), "99.99");
        assert_eq!(percent(1.0), "100.00");
        let text = report(record(99_999, 1), record(80, 20)).to_string();
        assert!(text.contains("99.99 % succeeded"), "{text}");
        assert!(text.contains("1 x status 500"), "{text}");
    }
}
