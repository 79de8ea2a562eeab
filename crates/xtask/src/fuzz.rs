//! `cargo xtask fuzz`: each fuzz target in turn, by cargo-fuzz, from the corpus that is committed.
//!
//! `--sanitizer none` is what makes it run on the stable toolchain: the coverage that libFuzzer needs is a pass of LLVM's,
//! the sanitizers are options of a nightly compiler. There is no unsafe code for them to watch.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::args::FuzzOptions;
use crate::process::{self, Keep};
use crate::tools::Tool;
use crate::workspace::Workspace;

const FUZZ: Tool = Tool {
    name: "cargo-fuzz",
    version: "0.13.2",
    options: &[],
};

/// The package of the targets.
const PACKAGE: &str = "crates/fuzz";

/// Whatever a target is said to run for, it is built first, and all that it needs.
const BUILD: Duration = Duration::from_secs(30 * 60);

pub(crate) fn run(options: &FuzzOptions) -> ExitCode {
    match fuzz(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn fuzz(options: &FuzzOptions) -> Result<(), String> {
    let workspace = Workspace::locate()?;
    let targets = chosen(
        targets(&workspace.root().join(PACKAGE).join("fuzz_targets"))?,
        &options.targets,
    )?;
    let program = match FUZZ.find(workspace.target()) {
        Some(program) => program,
        None => {
            execute(&mut FUZZ.install(&workspace), BUILD)?;
            FUZZ.built(workspace.target())
        }
    };
    let mut failed = Vec::new();
    for target in &targets {
        println!("\n== {target}");
        let mut command = command(&workspace, &program, target, options.seconds)?;
        let limit = BUILD + Duration::from_secs(options.seconds.into());
        if execute(&mut command, limit).is_err() {
            failed.push(target.as_str());
        }
    }
    let ran = targets.len();
    if failed.is_empty() {
        println!("\n{ran} targets, {} s each: ok", options.seconds);
        return Ok(());
    }
    Err(format!("{} of {ran} targets failed", failed.join(", ")))
}

/// The names of the targets, each of which is a file.
fn targets(folder: &Path) -> Result<Vec<String>, String> {
    let read = |error: std::io::Error| format!("cannot read {}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        names.extend(
            path.file_stem()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

/// Those of `all` that are `asked` for, all if none is.
fn chosen(all: Vec<String>, asked: &[String]) -> Result<Vec<String>, String> {
    if let Some(unknown) = asked.iter().find(|name| !all.contains(name)) {
        return Err(format!(
            "there is no target `{unknown}`, there are {}",
            all.join(", ")
        ));
    }
    let wanted = |name: &String| asked.is_empty() || asked.contains(name);
    Ok(all.into_iter().filter(wanted).collect())
}

fn command(
    workspace: &Workspace,
    program: &Path,
    target: &str,
    seconds: u32,
) -> Result<Command, String> {
    // libFuzzer writes what it finds into the first directory: the committed one does not grow by itself.
    let found = workspace.target().join("fuzz/corpus").join(target);
    fs::create_dir_all(&found).map_err(|error| format!("{}: {error}", found.display()))?;
    let committed: PathBuf = [PACKAGE, "corpus", target].iter().collect();
    let mut command = Command::new(program);
    command
        .args(["fuzz", "run", "--fuzz-dir", PACKAGE, "--sanitizer", "none"])
        .arg("--target-dir")
        .arg(workspace.target().join("fuzz"))
        .arg(target)
        .arg(found)
        .arg(committed)
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        // What takes so long for so little input is a find.
        .args(["-timeout=10", "-max_len=4096"]);
    command.current_dir(workspace.root());
    Ok(command)
}

fn execute(command: &mut Command, limit: Duration) -> Result<(), String> {
    match process::run(command, Keep::Nothing, limit) {
        Ok(finished) if finished.success => Ok(()),
        Ok(finished) if finished.out_of_time => Err("killed, the time for it is up".to_owned()),
        Ok(_) => Err("see above".to_owned()),
        Err(error) => Err(format!(
            "cannot run {}: {error}",
            command.get_program().display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn all_targets_run_unless_some_are_named_and_all_of_those_are_there() {
        let all = || names(&["a", "b", "c"]);
        assert_eq!(chosen(all(), &[]), Ok(all()));
        assert_eq!(chosen(all(), &names(&["c", "a"])), Ok(names(&["a", "c"])));
        let error = chosen(all(), &names(&["d"])).unwrap_err();
        assert_eq!(error, "there is no target `d`, there are a, b, c");
    }
}
