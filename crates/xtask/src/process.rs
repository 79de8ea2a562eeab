//! Child processes: shown before they run, ended when the time is up, their output kept where it is read.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// Which stream of a command is kept, beside being shown as it comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Keep {
    Nothing,
    Stdout,
    Stderr,
}

#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) success: bool,
    /// The time was up, so it was killed.
    pub(crate) out_of_time: bool,
    /// What [`Keep`] asked for.
    pub(crate) output: String,
}

/// Counts wall time from a start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[allow(
        clippy::disallowed_methods,
        reason = "how long builds take is wall time"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Prints `command`, runs it without stdin for at most `limit`, and says how it ended.
pub(crate) fn run(command: &mut Command, keep: Keep, limit: Duration) -> io::Result<Finished> {
    println!("$ {}", shown(command));
    command.stdin(Stdio::null());
    let command = match keep {
        Keep::Nothing => command,
        // What is read has to be free of colours, also where CI asks for them.
        Keep::Stdout => command
            .stdout(Stdio::piped())
            .env("CARGO_TERM_COLOR", "never"),
        Keep::Stderr => command
            .stderr(Stdio::piped())
            .env("CARGO_TERM_COLOR", "never"),
    };
    let mut child = command.spawn()?;
    let root = child.id();

    thread::scope(|scope| {
        let (done, is_done) = mpsc::channel::<()>();
        let watchdog = scope.spawn(move || {
            let out_of_time = is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            if out_of_time {
                kill_tree(root);
            }
            out_of_time
        });
        let output = tee(&mut child);
        let status = child.wait();
        drop(done);
        Ok(Finished {
            success: status?.success(),
            out_of_time: watchdog.join().unwrap_or(false),
            output: output?,
        })
    })
}

/// What a command said on its two streams.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `command` without showing anything; that it fails is an error that says what it said.
pub(crate) fn output(command: &mut Command) -> Result<Output, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", shown(command)))?;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    if output.status.success() {
        Ok(Output { stdout, stderr })
    } else {
        Err(format!("{} failed: {}", shown(command), stderr.trim()))
    }
}

/// Whether `command` can be run at all; says nothing.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// `command` as one would type it.
fn shown(command: &Command) -> String {
    let mut words = Vec::new();
    for (name, value) in command.get_envs() {
        // Where cargo builds is the same for all commands, and known to who set it.
        if let Some(value) = value.filter(|_| name != "CARGO_TARGET_DIR") {
            words.push(format!(
                "{}={}",
                name.display(),
                quoted(&value.to_string_lossy())
            ));
        }
    }
    let program = std::path::Path::new(command.get_program());
    words.push(
        program
            .file_name()
            .unwrap_or(program.as_os_str())
            .to_string_lossy()
            .into_owned(),
    );
    words.extend(command.get_args().map(|arg| quoted(&arg.to_string_lossy())));
    words.join(" ")
}

fn quoted(word: &str) -> String {
    if word.contains(char::is_whitespace) {
        format!("{word:?}")
    } else {
        word.to_owned()
    }
}

/// Shows what the piped stream says as it says it, and returns it.
fn tee(child: &mut Child) -> io::Result<String> {
    match (child.stdout.take(), child.stderr.take()) {
        (Some(stdout), _) => copy(stdout, |line| print!("{line}")),
        (None, Some(stderr)) => copy(stderr, |line| eprint!("{line}")),
        (None, None) => Ok(String::new()),
    }
}

fn copy(from: impl Read, show: impl Fn(&str)) -> io::Result<String> {
    let mut from = BufReader::new(from);
    let mut all = String::new();
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        // A test may print any bytes.
        let text = String::from_utf8_lossy(&line);
        show(&text);
        all.push_str(&text);
        line.clear();
    }
    Ok(all)
}

/// Kills a process and all below it: cargo, when killed, leaves its test binaries running.
///
/// A process group would be simpler, but Ctrl-C on a terminal would then no longer reach the children.
fn kill_tree(root: u32) {
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&pid) = tree.get(next) {
        tree.extend(children(pid));
        next += 1;
    }
    let pids = tree.iter().map(u32::to_string);
    succeeds(Command::new("kill").arg("-KILL").args(pids));
}

/// The children of a process as Linux lists them, per thread that made them; elsewhere none.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn keeps_the_stream_that_was_asked_for() {
        let script = "echo out; echo err >&2; exit 3";
        let out = run(&mut sh(script), Keep::Stdout, LONG).unwrap();
        let err = run(&mut sh(script), Keep::Stderr, LONG).unwrap();
        assert_eq!(
            (out.output.as_str(), err.output.as_str()),
            ("out\n", "err\n")
        );
        assert!(!out.success && !out.out_of_time);
    }

    #[test]
    fn what_hangs_is_killed_with_its_children() {
        // The grandchild holds the pipe: unless it dies too, reading the output never ends.
        let hangs = run(
            &mut sh("sleep 600 & wait"),
            Keep::Stdout,
            Duration::from_millis(200),
        )
        .unwrap();
        assert!(hangs.out_of_time && !hangs.success);
    }

    #[test]
    fn a_command_that_does_not_exist_is_an_error() {
        assert!(run(&mut Command::new("no-such-command"), Keep::Nothing, LONG).is_err());
        assert!(!succeeds(&mut Command::new("no-such-command")));
    }

    #[test]
    fn commands_are_shown_as_typed() {
        let mut command = Command::new("/bin/cargo");
        command
            .env("RUSTDOCFLAGS", "-D warnings")
            .env("CARGO_TARGET_DIR", "here")
            .args(["doc", "--no-deps"]);
        assert_eq!(
            shown(&command),
            "RUSTDOCFLAGS=\"-D warnings\" cargo doc --no-deps"
        );
    }
}
