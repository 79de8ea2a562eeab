//! Valgrind: found, or fetched below the target directory; its callgrind counts instructions, its dhat allocations.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::process;

/// Counts what a program does, in a way that repeats.
#[derive(Debug)]
pub(crate) struct Valgrind {
    program: PathBuf,
    /// Where its tools lie, unless it knows.
    tools: Option<PathBuf>,
    /// For what it writes to files.
    scratch: PathBuf,
}

/// What callgrind counts in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Executed {
    pub(crate) instructions: u64,
    /// How often the system was asked for the time.
    pub(crate) clock_reads: u64,
    /// How often a timer was registered with tokio.
    pub(crate) timers: u64,
}

/// What dhat counts in a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Allocated {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

const MISSING: &str = "valgrind is neither installed nor to be had as a Debian package; \
     install it (Debian, Ubuntu: apt-get install valgrind; Fedora: dnf install valgrind) and try again";

impl Valgrind {
    /// Finds it, or fetches it below `target`.
    ///
    /// # Errors
    ///
    /// A sentence that says what to do, where it cannot be had.
    pub(crate) fn find(target: &Path) -> Result<Self, String> {
        let scratch = target.join("bench");
        fs::create_dir_all(&scratch).map_err(|error| error.to_string())?;
        let installed = Self {
            program: "valgrind".into(),
            tools: None,
            scratch,
        };
        if installed.works() {
            return Ok(installed);
        }
        let root = target.join("tools/valgrind");
        if let Some(unpacked) = installed.unpacked(&root) {
            return Ok(unpacked);
        }
        fetch(&root).map_err(|error| format!("{MISSING} ({error})"))?;
        let unpacked = installed.unpacked(&root);
        unpacked.ok_or_else(|| format!("{MISSING} (what was fetched does not run)"))
    }

    /// The one that a package unpacked below `root` brings, if it runs.
    fn unpacked(&self, root: &Path) -> Option<Self> {
        let usr = root.join("usr");
        let arch = format!("lib/{}-linux-gnu/valgrind", env::consts::ARCH);
        let tools = ["libexec/valgrind", &arch, "lib/valgrind"].map(|tools| usr.join(tools));
        let valgrind = Self {
            program: usr.join("bin/valgrind"),
            tools: Some(tools.into_iter().find(|tools| tools.is_dir())?),
            scratch: self.scratch.clone(),
        };
        valgrind.works().then_some(valgrind)
    }

    /// A version alone says nothing: its tools may be elsewhere.
    fn works(&self) -> bool {
        process::succeeds(self.command("none").arg("true"))
    }

    pub(crate) fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(format!("--tool={tool}"));
        if let Some(tools) = &self.tools {
            command.env("VALGRIND_LIB", tools);
        }
        command
    }

    pub(crate) fn version(&self) -> String {
        let mut command = Command::new(&self.program);
        let version = process::output(command.arg("--version")).unwrap_or_default();
        version.stdout.trim().to_owned()
    }

    /// Runs `program` and counts what it executes within its rounds of calls: what comes before is no call's, and takes
    /// as long as the clock says it should.
    pub(crate) fn callgrind(&self, program: &Path, args: &[&str]) -> Result<Executed, String> {
        let out = self.scratch.join("callgrind.out");
        let mut command = self.command("callgrind");
        command
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg("--toggle-collect=tower_mesh_bench::case::round*")
            .arg(program)
            .args(args);
        let ran = process::output(&mut command)?;
        let profile = fs::read_to_string(&out).map_err(|error| error.to_string())?;
        executed(&ran.stderr, &profile)
    }

    /// Runs `program` and counts what it allocates.
    pub(crate) fn dhat(&self, program: &Path, args: &[&str]) -> Result<Allocated, String> {
        let mut command = self.command("dhat");
        command
            .arg("--dhat-out-file=/dev/null")
            .arg(program)
            .args(args);
        allocated(&process::output(&mut command)?.stderr)
    }
}

/// Unpacks Debian's package, without root and without installing anything.
fn fetch(root: &Path) -> Result<(), String> {
    println!(
        "valgrind is not installed: fetching it below {}",
        root.display()
    );
    fs::create_dir_all(root).map_err(|error| error.to_string())?;
    if download(root, &[]).is_err() {
        // A machine that was just made knows no packages yet, and its own list is root's.
        let lists = root.join("lists");
        let cache = root.join("cache");
        for dir in [lists.join("partial"), cache.join("archives/partial")] {
            fs::create_dir_all(dir).map_err(|error| error.to_string())?;
        }
        let own = [
            format!("Dir::State::Lists={}", lists.display()),
            format!("Dir::Cache={}", cache.display()),
        ];
        let mut update = apt_get(root, &own);
        process::output(update.arg("update"))?;
        download(root, &own)?;
    }
    let package = fs::read_dir(root)
        .map_err(|error| error.to_string())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or("apt-get downloaded nothing")?;
    let mut unpack = Command::new("dpkg-deb");
    process::output(unpack.arg("--extract").arg(package).arg(root)).map(drop)
}

fn download(root: &Path, options: &[String]) -> Result<(), String> {
    process::output(apt_get(root, options).args(["download", "valgrind"])).map(drop)
}

fn apt_get(directory: &Path, options: &[String]) -> Command {
    let mut command = Command::new("apt-get");
    command.current_dir(directory);
    for option in options {
        command.args(["-o", option]);
    }
    command
}

/// What callgrind says at its end, and in its profile of calls.
fn executed(summary: &str, profile: &str) -> Result<Executed, String> {
    let instructions = summary
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, number)| number.trim().parse().ok())
        .ok_or("callgrind said no number")?;
    let mut executed = Executed {
        instructions,
        ..Executed::default()
    };
    // A function is named where it first occurs, and numbered from then on: `cfn=(12) name`, then `cfn=(12)`.
    let mut of_interest = std::collections::HashMap::new();
    let mut called = "";
    for line in profile.lines() {
        if let Some((number, name)) = function(line) {
            if let Some(name) = name {
                of_interest.insert(number, kind(name));
            }
            if line.starts_with("cfn=") {
                called = number;
            }
        } else if let Some(rest) = line.strip_prefix("calls=") {
            let times = rest.split(' ').next().and_then(|times| times.parse().ok());
            let times: u64 = times.ok_or("callgrind counted no calls")?;
            match of_interest.get(called) {
                Some(Some(Function::ReadsTheClock)) => executed.clock_reads += times,
                Some(Some(Function::RegistersATimer)) => executed.timers += times,
                _ => {}
            }
        }
    }
    Ok(executed)
}

#[derive(Clone, Copy)]
enum Function {
    ReadsTheClock,
    RegistersATimer,
}

fn kind(function: &str) -> Option<Function> {
    if function.starts_with("clock_gettime") {
        Some(Function::ReadsTheClock)
    } else if function.contains("runtime::time::") && function.ends_with("::reregister") {
        Some(Function::RegistersATimer)
    } else {
        None
    }
}

/// The number of a function, and its name where it has one: `fn=(7) main`, `cfn=(7)`.
fn function(line: &str) -> Option<(&str, Option<&str>)> {
    let rest = line
        .strip_prefix("fn=(")
        .or_else(|| line.strip_prefix("cfn=("))?;
    let (number, name) = rest.split_once(')')?;
    let name = name.trim();
    Some((number, (!name.is_empty()).then_some(name)))
}

/// `==7== Total:     1,234 bytes in 5 blocks`
fn allocated(summary: &str) -> Result<Allocated, String> {
    let total = summary
        .lines()
        .find_map(|line| line.split_once("Total:"))
        .ok_or("dhat said no total")?;
    let mut numbers = total.1.split_whitespace().filter_map(|word| {
        let digits = word.replace(',', "");
        digits.parse().ok()
    });
    match (numbers.next(), numbers.next()) {
        (Some(bytes), Some(blocks)) => Ok(Allocated { blocks, bytes }),
        _ => Err(format!("dhat's total is not understood: {}", total.1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_those_collected() {
        let summary = "==7== Events    : Ir\n==7== Collected : 12345\n";
        assert_eq!(executed(summary, "").map(|e| e.instructions), Ok(12_345));
        assert!(executed("==7== nothing", "").is_err());
    }

    #[test]
    fn calls_are_summed_over_all_callers_by_the_number_of_the_callee() {
        let profile = "\
fn=(1) main
cfn=(2) clock_gettime@@GLIBC_2.17
calls=3 +1
cfn=(3) tokio::runtime::time::<impl tokio::runtime::time::handle::Handle>::reregister
calls=5 +1
fn=(4) other
cfn=(2)
calls=4 +1
cfn=(1)
calls=100 +1
";
        let executed = executed("Collected : 1", profile).expect("complete");
        assert_eq!((executed.clock_reads, executed.timers), (7, 5));
    }

    #[test]
    fn allocations_are_dhats_total() {
        let summary = "==7== Total:     2,412,345 bytes in 1,234 blocks\n==7== At t-gmax: 1 bytes";
        let expected = Allocated {
            blocks: 1_234,
            bytes: 2_412_345,
        };
        assert_eq!(allocated(summary), Ok(expected));
        assert!(allocated("Total: many").is_err());
    }
}
