//! Tables and JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{
    cell::{Cell, Measured},
    contender::Contender,
    fleet::Fleet,
    holds::{Held, Verdict},
};

/// Cells with what was measured in them.
pub type Results = Vec<(Cell, Measured)>;

/// One cell as a line of text.
pub fn line(cell: &Cell, measured: &Measured) -> String {
    format!(
        "{:24} {:>3.0} %  {:26} p50 / p99 / p99.9 in ms: {}",
        cell.fleet.name(),
        cell.utilisation * 100.0,
        cell.contender.name(),
        figures(&[measured]),
    )
}

/// The bars as lines of text.
pub fn bars(held: &[Held]) -> String {
    let mut text = String::new();
    for held in held {
        let _ = writeln!(
            text,
            "{:52} {:6.3}  {:17} {}",
            held.what,
            held.figure,
            held.bar,
            verdict(held)
        );
    }
    text
}

fn verdict(held: &Held) -> &'static str {
    match held.verdict {
        Verdict::Holds => "holds",
        Verdict::Fails => "FAILS",
    }
}

/// All of it, for machines. The same run gives the same text.
pub fn json(seeds: &[u64], results: &Results, held: &[Held]) -> Value {
    let cells = results.iter().map(|(cell, measured)| {
        json!({
            "fleet": cell.fleet.name(),
            "utilisation": cell.utilisation,
            "contender": cell.contender.name(),
            "seed": cell.seed,
            "measured": measured,
        })
    });
    json!({
        "seeds": seeds,
        "holds": held,
        "cells": cells.collect::<Vec<_>>(),
    })
}

const INTRODUCTION: &str = "\
50 clients of 100 servers with four slots each, log-normal work of 10 ms in the mean, 100 us on the wire each way, open \
arrivals; utilisation is a share of what the fleet can do, antagonists considered. 4 s to warm up, 11 s measured. \
`tower-mesh` is the shipped `MeshService` with the default policy: GET requests, so what fails may be tried again within \
the budget. `with reports` is the same with `Strategy::Reported`, and servers that have the shipped `ReportLoadLayer`. The others try once: each of their errors is a lost call. Lost calls have no latency here, calls that were \
tried again have all of it.
";

/// The tables of `balance.md`.
pub fn markdown(command: &str, seeds: &[u64], results: &Results, held: &[Held]) -> String {
    let mut text = format!("# Quality of balancing\n\n`{command}`, seeds {seeds:?}.\n\n");
    text += INTRODUCTION;
    text += "\n| what is held | is | bar | |\n|---|---:|---|---|\n";
    for held in held {
        let (what, figure, bar) = (held.what, held.figure, &held.bar);
        let _ = writeln!(text, "| {what} | {figure:.2} | {bar} | {} |", verdict(held));
    }
    text += "\nCells: p50 / p99 / p99.9 in ms, and what there is to say beside. Means over the seeds.\n";
    for fleet in in_order(results, |cell| cell.fleet) {
        text += &table(fleet, results);
    }
    text
}

fn table(fleet: Fleet, results: &Results) -> String {
    let of_fleet = results.iter().filter(|(cell, _)| cell.fleet == fleet);
    let of_fleet: Results = of_fleet.cloned().collect();
    let mut loads = in_order(&of_fleet, |cell| percent(cell.utilisation));
    loads.sort_unstable();
    let mut text = format!("\n## {}\n\n{}\n\n|", fleet.name(), fleet.what());
    for load in &loads {
        let _ = write!(text, " | {load} %");
    }
    let _ = writeln!(text, " |\n|---{}|", "|---:".repeat(loads.len()));
    for contender in in_order(&of_fleet, |cell| cell.contender) {
        let _ = write!(text, "| {}", contender.name());
        for load in &loads {
            let here =
                |cell: &Cell| cell.contender == contender && percent(cell.utilisation) == *load;
            let _ = write!(text, " | {}", figures(&select(&of_fleet, here)));
        }
        text += " |\n";
    }
    text
}

fn select(results: &Results, of: impl Fn(&Cell) -> bool) -> Vec<&Measured> {
    let of = results.iter().filter(|(cell, _)| of(cell));
    of.map(|(_, measured)| measured).collect()
}

/// The mean of the figures of several seeds, as text.
fn figures(seeds: &[&Measured]) -> String {
    if seeds.is_empty() {
        return String::new();
    }
    let p50 = mean(seeds, |measured| measured.p50);
    let p99 = mean(seeds, |measured| measured.p99);
    let p999 = mean(seeds, |measured| measured.p999);
    let mut text = format!("{p50:.1} / {p99:.0} / {p999:.0}");
    let again = mean(seeds, |measured| measured.attempts) - 1.0;
    if again >= 0.000_05 {
        let _ = write!(text, ", {:.2} % tried again", again * 100.0);
    }
    let lost = mean(seeds, |measured| measured.lost);
    if lost > 0.0 {
        let _ = write!(text, ", {:.2} % lost", lost * 100.0);
    }
    for (what, of) in EXTRAS {
        if seeds.iter().all(|measured| of(measured).is_some()) {
            let extra = mean(seeds, |measured| of(measured).unwrap_or_default());
            let _ = write!(text, ", {extra:.2} {what}");
        }
    }
    text
}

type Extra = fn(&Measured) -> Option<f64>;

const EXTRAS: [(&str, Extra); 3] = [
    ("of an equal share to the failing", |m| m.failing_share),
    ("of the others' mean in flight at most", |m| m.joined_peak),
    ("to heavy as to light", |m| m.heavy_to_light),
];

/// The mean of a figure over seeds.
pub(super) fn mean(seeds: &[&Measured], of: impl Fn(&Measured) -> f64) -> f64 {
    seeds.iter().map(|measured| of(measured)).sum::<f64>() / seeds.len() as f64
}

/// The p99 of a contender, in the mean over seeds.
pub(super) fn p99(results: &Results, fleet: Fleet, contender: Contender, load: u32) -> Option<f64> {
    let here = |cell: &Cell| {
        (cell.fleet, cell.contender, percent(cell.utilisation)) == (fleet, contender, load)
    };
    let seeds = select(results, here);
    (!seeds.is_empty()).then(|| mean(&seeds, |measured| measured.p99))
}

pub(super) fn percent(utilisation: f64) -> u32 {
    (utilisation * 100.0).round() as u32
}

/// Each value once, in the order in which they first appear.
pub(super) fn in_order<T: PartialEq>(results: &Results, of: impl Fn(&Cell) -> T) -> Vec<T> {
    let mut values = Vec::new();
    for value in results.iter().map(|(cell, _)| of(cell)) {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values
}
