//! Puts the shipped mesh through overload and outages, and fails if it does not come out of them as it has to.

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use lexopt::{Arg, ValueExt};
use tower_mesh_bench::storms::{Figure, Mutant, Run, Size, Storm, Verdict};

const HELP: &str = "\
Puts the shipped mesh through overload and outages in virtual time; fails (1) if it does not come out of them.

usage: cargo xtask sim [OPTIONS]

Without options: every scenario as the study has it with a fixed seed, what is broken on purpose and has to be noticed,
and 200 seeds.

  --seeds N        so many seeds, each of which stands for a scenario, its fleet and what goes wrong
  --seed S         that seed; with --seeds, the first one
  --scenario NAME  that scenario: S1, S2 or S4 to S10
  --full           as the study has it: larger, and at both loads
  --mutant NAME    with that broken: no-limit, budget-alone, no-budget, no-judges, blind, no-slow-start, credulous, told-late,
                   no-panic, no-priorities, untold
  --threads N      how many are run at once (default: as many as there are cores)
  --verbose        print every figure, not only those that fail
  --help           print this
";

/// Of the fixed runs.
const FIXED: u64 = 1;
/// How many seeds there are if nothing is said.
const SEEDS: u64 = 200;

struct Options {
    runs: Vec<Run>,
    mutants: bool,
    threads: usize,
    verbose: bool,
}

fn main() -> ExitCode {
    match options() {
        Ok(Some(options)) if all_well(&options) => ExitCode::SUCCESS,
        Ok(Some(_)) => ExitCode::FAILURE,
        Ok(None) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn options() -> Result<Option<Options>, lexopt::Error> {
    let (mut seed, mut seeds, mut storm, mut mutant) = (None, None, None, None);
    let (mut size, mut verbose) = (Size::Small, false);
    let mut threads = thread::available_parallelism().map_or(1, usize::from);
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("seed") => seed = Some(args.value()?.parse()?),
            Arg::Long("seeds") => seeds = Some(args.value()?.parse()?),
            Arg::Long("scenario") => {
                let named = |name: &str| Storm::named(name).ok_or("there is no such scenario");
                storm = Some(args.value()?.parse_with(named)?);
            }
            Arg::Long("mutant") => {
                let named = |name: &str| Mutant::named(name).ok_or("there is no such mutant");
                mutant = Some(args.value()?.parse_with(named)?);
            }
            Arg::Long("full") => size = Size::Full,
            Arg::Long("threads") => threads = args.value()?.parse::<usize>()?.max(1),
            Arg::Long("verbose") => verbose = true,
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    let default = (seed, seeds, storm, mutant, size) == (None, None, None, None, Size::Small);
    let first: u64 = seed.unwrap_or(1);
    let count = seeds.unwrap_or(if default { SEEDS } else { 1 });
    let of = |seed: u64| Run {
        storm: storm.unwrap_or(Storm::of(seed)),
        size,
        seed,
        mutant,
    };
    let mut runs: Vec<Run> = (first..first.saturating_add(count)).map(of).collect();
    if default {
        // The longest ones first, so that no core waits for one in the end.
        runs.splice(0..0, Storm::LONGEST_FIRST.map(fixed));
    }
    Ok(Some(Options {
        runs,
        mutants: default,
        threads,
        verbose: verbose || count == 1,
    }))
}

fn fixed(storm: Storm) -> Run {
    Run {
        storm,
        size: Size::Full,
        seed: FIXED,
        mutant: None,
    }
}

/// Runs all of it, and answers whether nothing has failed.
fn all_well(options: &Options) -> bool {
    let failed = Mutex::new(Vec::new());
    let known = AtomicUsize::new(0);
    each(&options.runs, options.threads, |run| {
        let figures = run.figures();
        let verdicts = run.judge(&figures);
        let lines = lines(&figures, &verdicts, options.verbose);
        let fails = verdicts.contains(&Verdict::Fails);
        let knows = verdicts
            .iter()
            .filter(|verdict| **verdict == Verdict::Known);
        known.fetch_add(knows.count(), Ordering::Relaxed);
        if fails || options.verbose || run.size == Size::Full {
            println!("{run}\n{lines}");
        }
        if fails {
            lock(&failed).push(run.to_string());
        }
    });
    if options.mutants {
        each(&Mutant::ALL, options.threads, |notice| {
            match notice.notices(FIXED) {
                Ok(figure) => println!("noticed: {}: {figure}", notice.run(FIXED)),
                Err(why) => {
                    println!("not noticed: {}: {why}", notice.run(FIXED));
                    lock(&failed).push(notice.run(FIXED).to_string());
                }
            }
        });
    }
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (runs, known) = (options.runs.len(), known.into_inner());
    println!(
        "{runs} runs, {} failed; {known} figures are known not to hold",
        failed.len()
    );
    for run in &failed {
        println!("replay with: {run}");
    }
    failed.is_empty()
}

fn lines(figures: &[Figure], verdicts: &[Verdict], all: bool) -> String {
    let mut lines = String::new();
    for (figure, verdict) in figures.iter().zip(verdicts) {
        let word = match verdict {
            Verdict::Holds if !all => continue,
            Verdict::Holds => "holds",
            Verdict::Known => "known",
            Verdict::Fails => "FAILS",
        };
        lines += &format!("  {word}  {figure}\n");
    }
    lines
}

/// Does it for each of them, on so many threads.
fn each<T: Sync>(all: &[T], threads: usize, does: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            does(one);
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
