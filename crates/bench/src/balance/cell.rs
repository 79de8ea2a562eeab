//! One contender on one fleet.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde::Serialize;
use tower_mesh_sim::{Policy, Report, Server, Simulation};

use super::{contender::Contender, fleet::Fleet};

/// Long enough for the slowest memory here, tower's peak, to matter no more than it always does.
const WARM_UP: Duration = Duration::from_secs(4);
/// Some 300,000 calls: a p99 within 1 or 2 %.
const MEASURED: Duration = Duration::from_secs(11);
/// Of which a server that fails does so.
const FAILING: Duration = Duration::from_secs(8);
const FAILS_AFTER: Duration = Duration::from_micros(100);
/// The one that fails: a fast one.
const FAILS: usize = 1;

/// What is run: it is the same each time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Who chooses.
    pub contender: Contender,
    /// Whom from.
    pub fleet: Fleet,
    /// The share of what the fleet can do that is asked of it.
    pub utilisation: f64,
    /// Decides all that is left to chance.
    pub seed: u64,
}

/// What came of it. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Calls measured.
    pub calls: u64,
    /// Latency of the calls that were answered, retries included.
    pub p50: f64,
    /// The same.
    pub p99: f64,
    /// The same.
    pub p999: f64,
    /// Calls lost, as a share of all.
    pub lost: f64,
    /// Attempts a call.
    pub attempts: f64,
    /// What the failing server was given while it failed, as a multiple of an equal share of all attempts.
    pub failing_share: Option<f64>,
    /// The peak in flight of the server that joined, as a multiple of what the others have in the mean.
    pub joined_peak: Option<f64>,
    /// What heavy servers were given as a multiple of what light ones were.
    pub heavy_to_light: Option<f64>,
}

/// Runs a policy through what happens to the cell's fleet.
pub(super) fn measure<P: Policy>(cell: &Cell, policy: P) -> Measured {
    let scenario = cell.fleet.scenario(cell.utilisation, cell.seed);
    let mut sim = scenario.start(policy);
    sim.run(WARM_UP);
    sim.reset();
    let (mut failing_share, mut joined) = (None, None);
    match cell.fleet {
        Fleet::FailFast => failing_share = Some(fail(&mut sim)),
        Fleet::ColdJoin => {
            joined = Some(sim.join(Server::new()));
            sim.run(MEASURED);
        }
        _ => sim.run(MEASURED),
    }
    sim.drain();
    let report = sim.report();
    let weighted = matches!(
        cell.fleet,
        Fleet::Weights | Fleet::WeightsOfFew | Fleet::Sizes
    );
    Measured {
        failing_share,
        joined_peak: joined.map(|server| joined_peak(&report, server)),
        heavy_to_light: weighted.then(|| heavy_to_light(&report)),
        ..Measured::of(&report)
    }
}

/// One server fails for a part of the time; gives its share meanwhile.
fn fail<P: Policy>(sim: &mut Simulation<P>) -> f64 {
    let around = (MEASURED - FAILING) / 2;
    let attempts = |sim: &Simulation<P>| -> Vec<u64> {
        let servers = sim.servers();
        servers.iter().map(|server| server.attempts).collect()
    };
    sim.run(around);
    sim.fail(FAILS, FAILS_AFTER);
    let before = attempts(sim);
    sim.run(FAILING);
    let after = attempts(sim);
    sim.heal(FAILS);
    sim.run(around);
    let all: u64 = after.iter().sum::<u64>() - before.iter().sum::<u64>();
    let fair = all as f64 / after.len() as f64;
    (after[FAILS] - before[FAILS]) as f64 / fair
}

fn joined_peak(report: &Report, joined: usize) -> f64 {
    let others = &report.servers()[..joined];
    let usual: f64 = others.iter().map(|server| server.in_flight).sum();
    report.servers()[joined].peak_in_flight as f64 / (usual / others.len() as f64)
}

fn heavy_to_light(report: &Report) -> f64 {
    let of = |odd: usize| -> u64 {
        let servers = report.servers().iter().skip(odd).step_by(2);
        servers.map(|server| server.attempts).sum()
    };
    of(1) as f64 / of(0) as f64
}

impl Measured {
    fn of(report: &Report) -> Self {
        let ms = |share| report.latency(share).as_secs_f64() * 1e3;
        Self {
            calls: report.calls(),
            p50: ms(0.5),
            p99: ms(0.99),
            p999: ms(0.999),
            lost: (report.failed() + report.unfinished()) as f64 / report.calls().max(1) as f64,
            attempts: report.attempts() as f64 / report.calls().max(1) as f64,
            failing_share: None,
            joined_peak: None,
            heavy_to_light: None,
        }
    }
}

/// Runs all cells on so many threads; results come in the order of the cells, and do not depend on the threads.
pub fn run_all(
    cells: &[Cell],
    threads: usize,
    progress: impl Fn(&Cell, &Measured) + Sync,
) -> Vec<Measured> {
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<Measured>>> = cells.iter().map(|_| Mutex::default()).collect();
    let work = || {
        while let Some(nth) = claim(&next, cells.len()) {
            let cell = &cells[nth];
            let measured = cell.contender.run(cell);
            progress(cell, &measured);
            *done[nth].lock().expect("nobody panics with it") = Some(measured);
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    done.into_iter()
        .map(|measured| measured.into_inner().expect("nobody panics with it"))
        .map(|measured| measured.expect("every cell was claimed"))
        .collect()
}

fn claim(next: &AtomicUsize, of: usize) -> Option<usize> {
    let nth = next.fetch_add(1, Ordering::Relaxed);
    (nth < of).then_some(nth)
}
