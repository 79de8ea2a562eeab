//! A case: a binary that makes calls through one client, and says what they cost where it can tell by itself.

use std::{
    future::Future, hint::black_box, process::ExitCode, sync::Barrier, thread, time::Duration,
};

use tokio::runtime::{Builder, Runtime};
use tower::BoxError;
use tower_mesh::core::{Clock, ManualClock};

use crate::{Client, Inner, client::calls, stopwatch::Stopwatch, trace};

const HELP: &str = "\
usage: CASE [calls|count|time|threads|trace] [OPTIONS]

calls    makes calls and says nothing: for valgrind
count    how often a call reads the injected clock, and how many timers it registers
time     nanoseconds a call, the best of ten rounds
threads  calls a second of one thread and of two
trace    calls of one thread, then of another, between stores to an address that it prints: for lackey

--endpoints N  how many endpoints there are to choose from, 1000
--calls N      how many calls (a round), 10000
--warm N       how many calls before, six for each endpoint: what an endpoint does at its first call is not a call's
--still        the clock stands still: under an instrument time runs faster than calls do
--pending      the service beneath is pending once
--busy         the service beneath works for a microsecond
";

/// What a case is made of.
#[derive(Debug)]
pub struct Setup {
    /// How many endpoints there are to choose from.
    pub endpoints: u32,
    /// What is called in the end.
    pub inner: Inner,
    /// What time is taken from, unless it is the default.
    pub clock: Option<Clock>,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Calls,
    Count,
    Time,
    Threads,
    Trace,
}

struct Options {
    mode: Mode,
    endpoints: u32,
    calls: u64,
    warm: Option<u64>,
    still: bool,
    inner: Inner,
}

/// The whole of a case: makes a client as the command line says, and calls through it.
///
/// The loop of calls is one function whatever is asked for, so that asking for something else does not change what is
/// inlined into it.
pub fn main<C, F>(client: impl FnOnce(Setup) -> F) -> ExitCode
where
    C: Client,
    F: Future<Output = Result<C, BoxError>>,
{
    let done = Options::parse(std::env::args().skip(1)).and_then(|options| run(&options, client));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn run<C, F>(options: &Options, client: impl FnOnce(Setup) -> F) -> Result<(), BoxError>
where
    C: Client,
    F: Future<Output = Result<C, BoxError>>,
{
    let (clock, hand) = Clock::manual();
    let by_hand = options.still || options.mode == Mode::Count;
    let clock = by_hand.then_some(clock);
    let runtime = match options.mode {
        Mode::Threads | Mode::Trace => Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()?,
        _ => Builder::new_current_thread().enable_time().build()?,
    };
    let client = runtime.block_on(client(Setup {
        endpoints: options.endpoints,
        inner: options.inner,
        clock,
    }))?;
    let warm = options.warm.unwrap_or(6 * u64::from(options.endpoints));
    round(&runtime, client.clone(), warm)?;
    match options.mode {
        Mode::Calls => round(&runtime, client, options.calls),
        Mode::Count => count(&runtime, client, options.calls, &hand),
        Mode::Time => time(&runtime, client, options.calls),
        Mode::Threads => threads(&runtime, client, options.calls),
        Mode::Trace => trace::run(&runtime, &client, options.calls),
    }
}

/// Not inlined, so that it is the same code for each of its callers; callgrind counts what is within it, by its name.
#[inline(never)]
fn round<C: Client>(runtime: &Runtime, client: C, number: u64) -> Result<(), BoxError> {
    runtime.block_on(calls(client, number))
}

fn count<C: Client>(
    runtime: &Runtime,
    client: C,
    calls: u64,
    hand: &ManualClock,
) -> Result<(), BoxError> {
    let (reads, timers) = (hand.reads(), hand.timers_registered());
    round(runtime, client, calls)?;
    #[allow(clippy::cast_precision_loss)] // Far below what a float holds.
    let per_call = |n: u64| n as f64 / calls as f64;
    println!(
        r#"{{"clock_reads":{},"timers":{}}}"#,
        per_call(hand.reads() - reads),
        per_call(hand.timers_registered() - timers)
    );
    Ok(())
}

fn time<C: Client>(runtime: &Runtime, client: C, calls: u64) -> Result<(), BoxError> {
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let watch = Stopwatch::start();
        round(runtime, client.clone(), calls)?;
        best = best.min(watch.elapsed());
    }
    #[allow(clippy::cast_precision_loss)]
    let nanos = best.as_nanos() as f64 / calls as f64;
    println!(r#"{{"ns":{nanos:.2}}}"#);
    Ok(())
}

/// Ten rounds of one thread and of two in turn; the best of each counts.
fn threads<C: Client>(runtime: &Runtime, client: C, calls: u64) -> Result<(), BoxError> {
    let (mut one, mut two) = (Duration::MAX, Duration::MAX);
    for _ in 0..10 {
        one = one.min(at_once(runtime, &client, calls, 1)?);
        two = two.min(at_once(runtime, &client, calls, 2)?);
    }
    #[allow(clippy::cast_precision_loss)]
    let per_second = |threads: u64, took: Duration| (calls * threads) as f64 / took.as_secs_f64();
    println!(
        r#"{{"one":{:.0},"two":{:.0}}}"#,
        per_second(1, one),
        per_second(2, two)
    );
    Ok(())
}

/// How long `threads` threads take that make `calls` calls each, from when the first begins until the last has ended.
///
/// Not tasks: two that are spawned together may well run on one worker, one after the other. And by their own watch: this
/// thread may be woken when all is over.
fn at_once<C: Client>(
    runtime: &Runtime,
    client: &C,
    calls: u64,
    threads: usize,
) -> Result<Duration, BoxError> {
    let start = Barrier::new(threads);
    let watch = Stopwatch::start();
    thread::scope(|scope| {
        let caller = || {
            let (start, client) = (&start, client.clone());
            scope.spawn(move || {
                start.wait();
                let began = watch.elapsed();
                round(runtime, client, calls).map(|()| (began, watch.elapsed()))
            })
        };
        let callers: Vec<_> = (0..threads).map(|_| caller()).collect();
        let (mut first, mut last) = (Duration::MAX, Duration::ZERO);
        for caller in callers {
            let (began, ended) = caller.join().map_err(|_| "a call panicked")??;
            (first, last) = (first.min(began), last.max(ended));
        }
        Ok(last.saturating_sub(first))
    })
}

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, BoxError> {
        let mut options = Self {
            mode: Mode::Calls,
            endpoints: 1_000,
            calls: 10_000,
            warm: None,
            still: false,
            inner: Inner::Ready,
        };
        let mut args = args;
        while let Some(arg) = args.next() {
            let mut number = || args.next().ok_or("a number is missing");
            match &*arg {
                "calls" => options.mode = Mode::Calls,
                "count" => options.mode = Mode::Count,
                "time" => options.mode = Mode::Time,
                "threads" => options.mode = Mode::Threads,
                "trace" => options.mode = Mode::Trace,
                "--endpoints" => options.endpoints = number()?.parse()?,
                "--calls" => options.calls = number()?.parse()?,
                "--warm" => options.warm = Some(number()?.parse()?),
                "--still" => options.still = true,
                "--pending" => options.inner = Inner::Pending,
                "--busy" => options.inner = Inner::Busy(rounds_in(Duration::from_micros(1))),
                other => return Err(format!("{other} does not exist").into()),
            }
        }
        Ok(options)
    }
}

/// How many rounds of [`Inner::Busy`] this machine makes in `time`, undisturbed.
fn rounds_in(time: Duration) -> u32 {
    const ROUNDS: u32 = 1_000_000;
    let once = || {
        let watch = Stopwatch::start();
        for round in 0..ROUNDS {
            black_box(round);
        }
        watch.elapsed()
    };
    let best = (0..10).map(|_| once()).min().unwrap_or(time);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rounds = (f64::from(ROUNDS) * time.as_secs_f64() / best.as_secs_f64()) as u32;
    rounds
}
