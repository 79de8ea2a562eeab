//! Compares the shipped mesh with others on simulated fleets, and fails if it is worse than it has to be.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use lexopt::{Arg, ValueExt};
use tower_mesh_bench::balance::{
    Cell, Contender, Fleet,
    holds::{self, Held, Verdict},
    output::{self, Results},
    plot, run_all,
};

const HELP: &str = "\
Runs the shipped MeshService, and others, on simulated fleets; fails (1) if it is worse than it has to be.

usage: cargo run --profile bench -p tower-mesh-bench --features balance --bin balance -- [OPTIONS]

  --full         every contender on every fleet at 70, 85 and 95 %, too: some minutes
  --seed N       the first seed (default 1)
  --seeds N      how many seeds, one after the other; figures are means over them (default 2)
  --threads N    how many cells are run at once (default: as many as there are cores)
  --out DIR      where to write balance.json, balance.md and balance.svg (with --full: balance-full.*, and a plot over
                 utilisation), instead of crates/bench/results
  --json         print the JSON instead of the table
  --help         print this
";

struct Options {
    full: bool,
    json: bool,
    seed: u64,
    seeds: u64,
    threads: usize,
    out: PathBuf,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn options() -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options {
        full: false,
        json: false,
        seed: 1,
        seeds: 2,
        threads: thread::available_parallelism().map_or(1, usize::from),
        out: Path::new(env!("CARGO_MANIFEST_DIR")).join("results"),
    };
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("full") => options.full = true,
            Arg::Long("json") => options.json = true,
            Arg::Long("seed") => options.seed = args.value()?.parse()?,
            Arg::Long("seeds") => options.seeds = args.value()?.parse::<u64>()?.max(1),
            Arg::Long("threads") => options.threads = args.value()?.parse::<usize>()?.max(1),
            Arg::Long("out") => options.out = args.value()?.into(),
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

/// Answers whether every bar holds that has to.
fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let seeds: Vec<u64> = (0..options.seeds).map(|nth| options.seed + nth).collect();
    let mut cells = holds::cells(&holds::ALL, &seeds);
    if options.full {
        add_all(&mut cells, &seeds);
    }
    let measured = run_all(&cells, options.threads, |cell, measured| {
        eprintln!("{}", output::line(cell, measured));
    });
    let results: Results = cells.into_iter().zip(measured).collect();
    let held = holds::judge(&holds::ALL, &seeds, &results);
    let json = serde_json::to_string_pretty(&output::json(&seeds, &results, &held))? + "\n";
    write(options, &seeds, &results, &held, &json)?;
    print!(
        "{}",
        if options.json {
            json
        } else {
            output::bars(&held)
        }
    );
    Ok(held.iter().all(|held| held.verdict != Verdict::Fails))
}

/// Every contender on every fleet, and what else is worth a look.
fn add_all(cells: &mut Vec<Cell>, seeds: &[u64]) {
    let mut add = |contender, fleet, utilisation| {
        for seed in seeds.iter().copied() {
            let cell = Cell {
                contender,
                fleet,
                utilisation,
                seed,
            };
            if !cells.contains(&cell) {
                cells.push(cell);
            }
        }
    };
    for fleet in Fleet::COMPARED {
        for utilisation in [0.7, 0.85, 0.95] {
            for contender in Contender::COMPARED {
                add(contender, fleet, utilisation);
            }
            if fleet == Fleet::FailFast {
                add(Contender::MeshWithoutJudges, fleet, utilisation);
            }
        }
    }
    for fleet in [
        Fleet::Even,
        Fleet::Uneven,
        Fleet::Antagonists,
        Fleet::Sparse,
    ] {
        for utilisation in [0.7, 0.85, 0.95] {
            for contender in Contender::STUDIED {
                add(contender, fleet, utilisation);
            }
        }
    }
    add(Contender::TowerPeakEwma, Fleet::ColdJoin, 0.85);
    add(Contender::Mesh, Fleet::WeightsOfFew, 0.3);
    add(Contender::Mesh, Fleet::Sizes, 0.4);
    add(Contender::Mesh, Fleet::Sizes, 0.7);
}

fn write(
    options: &Options,
    seeds: &[u64],
    results: &Results,
    held: &[Held],
    json: &str,
) -> Result<(), Box<dyn Error>> {
    let (name, command) = match options.full {
        true => ("balance-full", "cargo xtask bench --balance --full"),
        false => ("balance", "cargo xtask bench --balance"),
    };
    fs::create_dir_all(&options.out)?;
    let file = |ending: &str| options.out.join(format!("{name}{ending}"));
    fs::write(file(".json"), json)?;
    fs::write(file(".md"), output::markdown(command, seeds, results, held))?;
    fs::write(file(".svg"), plot::bars(results))?;
    if let Some(lines) = plot::lines(results) {
        fs::write(file("-utilisation.svg"), lines)?;
    }
    Ok(())
}
