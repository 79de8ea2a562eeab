//! Valgrind's lackey: every store of a program. Of two threads that call in turn it tells which cache lines both store to.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::valgrind::Valgrind;

/// A store of another core to any of its bytes takes the whole line away.
const LINE: u64 = 64;

/// How often two threads that call in turn store to lines to which the other one stores, too: in all.
pub(crate) fn contended(valgrind: &Valgrind, program: &Path, args: &[&str]) -> Result<u64, String> {
    let mut command = valgrind.command("lackey");
    command
        .args(["--trace-mem=yes", "--basic-counts=no"])
        .arg(program)
        .args(args);
    traced(&mut command).map_err(|error| format!("lackey: {error}"))
}

fn traced(command: &mut Command) -> Result<u64, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(text)?;
    let (mut stdin, stdout, stderr) = (
        child.stdin.take().ok_or("no stdin")?,
        child.stdout.take().ok_or("no stdout")?,
        child.stderr.take().ok_or("no stderr")?,
    );
    // The trace fills its pipe while the mark is still to be named, so both are read at once.
    let phases = std::thread::scope(|scope| {
        let (named, mark) = std::sync::mpsc::channel();
        let reader = scope.spawn(move || read(BufReader::new(stderr), &mark));
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map_err(text)?;
        let mark =
            u64::from_str_radix(line.trim(), 16).map_err(|_| format!("{line:?} is no address"))?;
        named.send(mark).map_err(|error| error.to_string())?;
        writeln!(stdin).map_err(text)?;
        reader
            .join()
            .map_err(|_| "the trace could not be read".to_owned())?
    });
    let status = child.wait().map_err(text)?;
    let phases = phases?;
    if !status.success() {
        return Err(format!("{} failed", command.get_program().display()));
    }
    phases.contended()
}

/// How often each line was stored to, between the marks of one thread and of the other.
#[derive(Default)]
struct Phases {
    marks: usize,
    stores: [HashMap<u64, u64>; 2],
}

fn read(mut trace: impl BufRead, mark: &std::sync::mpsc::Receiver<u64>) -> Result<Phases, String> {
    let mut phases = Phases::default();
    let mut known = None;
    let mut line = Vec::new();
    while trace
        .read_until(b'\n', &mut line)
        .map_err(|error| error.to_string())?
        > 0
    {
        if let Some((address, size)) = store(&line) {
            // It is named before the program goes on to its first mark.
            known = known.or_else(|| mark.try_recv().ok());
            phases.add(address, size, known);
        }
        line.clear();
    }
    Ok(phases)
}

/// ` S 1ffefff8,8` stores, ` M 1ffefff8,8` loads and stores; `I  04001090,3` and ` L 1ffefff8,8` do neither.
fn store(line: &[u8]) -> Option<(u64, u64)> {
    let rest = line.strip_prefix(b" S ").or(line.strip_prefix(b" M "))?;
    let (address, size) = std::str::from_utf8(rest).ok()?.trim().split_once(',')?;
    Some((u64::from_str_radix(address, 16).ok()?, size.parse().ok()?))
}

impl Phases {
    fn add(&mut self, address: u64, size: u64, mark: Option<u64>) {
        if mark == Some(address) {
            self.marks += 1;
        } else if self.marks % 2 == 1 {
            let Some(stores) = self.stores.get_mut(self.marks / 2) else {
                return;
            };
            for line in address / LINE..=(address + size.max(1) - 1) / LINE {
                *stores.entry(line).or_default() += 1;
            }
        }
    }

    fn contended(&self) -> Result<u64, String> {
        if self.marks != 4 {
            return Err(format!("{} marks instead of 4", self.marks));
        }
        let [one, other] = &self.stores;
        let both = one
            .iter()
            .filter_map(|(line, stores)| Some(stores + other.get(line)?));
        Ok(both.sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contended(trace: &str) -> Result<u64, String> {
        let (named, mark) = std::sync::mpsc::channel();
        named.send(0x1000).expect("the receiver is here");
        read(trace.as_bytes(), &mark)?.contended()
    }

    #[test]
    fn only_lines_of_both_threads_count_and_only_between_marks() {
        let trace = "\
 S 2000,8
 M 1000,8
 S 2000,8
 L 3000,8
 S 2038,8
I  4000,3
 S 5000,8
 M 1000,8
 S 6000,8
 S 1000,8
 M 2010,4
 S 3000,8
 S 6000,8
 S 1000,8
";
        // 2000, 2038 and 2010 are one line; 3000 was only read by the first, 6000 stored to between the phases.
        assert_eq!(contended(trace), Ok(3));
    }

    #[test]
    fn a_store_across_two_lines_is_one_to_each() {
        let trace = " S 1000,8\n S 203c,8\n S 1000,8\n S 1000,8\n S 2000,8\n S 2040,8\n S 1000,8\n";
        assert_eq!(contended(trace), Ok(4));
    }

    #[test]
    fn a_trace_that_breaks_off_is_an_error() {
        assert!(contended(" S 1000,8\n S 2000,8\n").is_err());
    }
}
