//! The commands of this repository: `cargo xtask COMMAND`, `cargo xtask --help`.

mod args;
mod bench;
mod deny;
mod examples;
mod fuzz;
mod loom;
mod process;
mod quickstart;
mod results;
mod servers;
mod sim;
mod stages;
mod summary;
mod test;
mod tools;
mod workspace;

use std::env;
use std::process::ExitCode;

use args::Invocation;

/// What the user asked for could not be understood, as opposed to: it was done and failed.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match args::parse(env::args_os().skip(1)) {
        Ok(Invocation::Help(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Invocation::Test(options)) => test::run(&options),
        Ok(Invocation::Bench(options)) => bench::run(&options),
        Ok(Invocation::Servers) => servers::run(),
        Ok(Invocation::Fuzz(options)) => fuzz::run(&options),
        Ok(Invocation::Sim(args)) => sim::run(&args),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(USAGE)
        }
    }
}
