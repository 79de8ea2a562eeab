//! What has to hold.

use serde::Serialize;

use super::{
    cell::{Cell, Measured},
    contender::Contender,
    fleet::Fleet,
};

/// One bar.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    /// What is held, as it is printed.
    pub what: &'static str,
    /// The figure.
    pub of: Figure,
    /// What it must be at most, or how far it may be off.
    pub bar: Bar,
}

/// What is compared. All of it at a utilisation of 85 %, but for weights, where it is 30 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure {
    /// The mesh's p99 on a fleet, as a multiple of another one's.
    P99(Fleet, Contender),
    /// The p99 of the mesh that goes by servers' reports, too, as a multiple of that of the mesh that does not.
    Reports(Fleet),
    /// The mesh's p99.9 with pauses, as a multiple of that without.
    PausesP999,
    /// What a server is given that fails fast, as a multiple of an equal share.
    FailingShare(Contender),
    /// The peak in flight of a server that joins, as a multiple of what the others have.
    JoinedPeak,
    /// What heavy servers are given as a multiple of light ones.
    HeavyToLight,
}

/// How good a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// At most this.
    AtMost(f64),
    /// So near to that, as a share of it.
    Within {
        /// As a share of `of`.
        off: f64,
        /// What it should be.
        of: f64,
    },
}

/// What became of a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It does not: the run has failed.
    Fails,
}

/// A bar with its figure.
#[derive(Clone, Debug, Serialize)]
pub struct Held {
    /// What is held.
    pub what: &'static str,
    /// The mean over all seeds.
    pub figure: f64,
    /// One for each seed.
    pub by_seed: Vec<f64>,
    /// The bar, as it is printed.
    pub bar: String,
    /// What became of it.
    pub verdict: Verdict,
}

const LOADED: f64 = 0.85;
/// So little that servers answer alike whatever they are given.
const IDLE: f64 = 0.3;

/// All of them.
pub const ALL: [Hold; 15] = [
    p99(
        "uneven: p99 to least in flight",
        Fleet::Uneven,
        Contender::LeastInFlight,
        0.45,
    ),
    p99(
        "uneven: p99 to tower's peak-EWMA",
        Fleet::Uneven,
        Contender::TowerPeakEwma,
        0.95,
    ),
    p99(
        "antagonists: p99 to least in flight",
        Fleet::Antagonists,
        Contender::LeastInFlight,
        0.40,
    ),
    p99(
        "antagonists: p99 to tower's peak-EWMA",
        Fleet::Antagonists,
        Contender::TowerPeakEwma,
        0.70,
    ),
    p99(
        "even: p99 to least in flight",
        Fleet::Even,
        Contender::LeastInFlight,
        1.03,
    ),
    p99(
        "even: p99 to tower's peak-EWMA",
        Fleet::Even,
        Contender::TowerPeakEwma,
        1.03,
    ),
    reports(
        "antagonists: p99 with reports to that without",
        Fleet::Antagonists,
        0.90,
    ),
    reports("even: p99 with reports to that without", Fleet::Even, 1.0),
    reports(
        "uneven: p99 with reports to that without",
        Fleet::Uneven,
        1.0,
    ),
    reports(
        "pauses: p99 with reports to that without",
        Fleet::Pauses,
        1.0,
    ),
    Hold {
        what: "one fails fast: its share, by the strategy alone",
        of: Figure::FailingShare(Contender::MeshWithoutJudges),
        bar: Bar::AtMost(0.5),
    },
    Hold {
        what: "one fails fast: its share, everything on",
        of: Figure::FailingShare(Contender::Mesh),
        bar: Bar::AtMost(0.2),
    },
    Hold {
        what: "pauses: p99.9 to that without",
        of: Figure::PausesP999,
        bar: Bar::AtMost(1.3),
    },
    Hold {
        what: "one joins: its peak in flight to the mean of others",
        of: Figure::JoinedPeak,
        bar: Bar::AtMost(3.0),
    },
    Hold {
        what: "weights 1:3: calls to heavy ones to light ones",
        of: Figure::HeavyToLight,
        bar: Bar::Within { off: 0.05, of: 3.0 },
    },
];

const fn p99(what: &'static str, fleet: Fleet, other: Contender, most: f64) -> Hold {
    Hold {
        what,
        of: Figure::P99(fleet, other),
        bar: Bar::AtMost(most),
    }
}

const fn reports(what: &'static str, fleet: Fleet, most: f64) -> Hold {
    Hold {
        what,
        of: Figure::Reports(fleet),
        bar: Bar::AtMost(most),
    }
}

/// The cells that the bars need, each once.
pub fn cells(holds: &[Hold], seeds: &[u64]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for seed in seeds {
        for cell in holds.iter().flat_map(|hold| hold.of.cells(*seed)) {
            if !cells.contains(&cell) {
                cells.push(cell);
            }
        }
    }
    cells
}

/// Judges the bars by what was measured.
///
/// # Panics
///
/// If a cell of [`cells`] is missing.
pub fn judge(holds: &[Hold], seeds: &[u64], measured: &[(Cell, Measured)]) -> Vec<Held> {
    holds
        .iter()
        .map(|hold| {
            let figure = |seed: &u64| hold.of.figure(*seed, measured);
            hold.judge(seeds.iter().map(figure).collect())
        })
        .collect()
}

impl Hold {
    fn judge(&self, by_seed: Vec<f64>) -> Held {
        let figure = by_seed.iter().sum::<f64>() / by_seed.len() as f64;
        let verdict = match self.bar.holds(figure) {
            true => Verdict::Holds,
            false => Verdict::Fails,
        };
        Held {
            what: self.what,
            figure,
            by_seed,
            bar: self.bar.to_string(),
            verdict,
        }
    }
}

impl Bar {
    /// Whether a figure is good enough.
    pub fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= most,
            Self::Within { off, of } => (figure / of - 1.0).abs() <= off,
        }
    }
}

impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<= {most:.2}"),
            Self::Within { off, of } => write!(f, "{of:.2} within {:.0} %", off * 100.0),
        }
    }
}

impl Figure {
    fn cells(self, seed: u64) -> Vec<Cell> {
        let cell = |contender, fleet, utilisation| Cell {
            contender,
            fleet,
            utilisation,
            seed,
        };
        let mesh = Contender::Mesh;
        match self {
            Self::P99(fleet, other) => {
                vec![cell(mesh, fleet, LOADED), cell(other, fleet, LOADED)]
            }
            Self::Reports(fleet) => vec![
                cell(Contender::MeshWithReports, fleet, LOADED),
                cell(mesh, fleet, LOADED),
            ],
            Self::PausesP999 => vec![
                cell(mesh, Fleet::Pauses, LOADED),
                cell(mesh, Fleet::Uneven, LOADED),
            ],
            Self::FailingShare(contender) => vec![cell(contender, Fleet::FailFast, LOADED)],
            Self::JoinedPeak => vec![cell(mesh, Fleet::ColdJoin, LOADED)],
            Self::HeavyToLight => vec![cell(mesh, Fleet::Weights, IDLE)],
        }
    }

    fn figure(self, seed: u64, measured: &[(Cell, Measured)]) -> f64 {
        let of = |cell: &Cell| {
            let found = measured.iter().find(|(known, _)| known == cell);
            &found.expect("the cell was measured").1
        };
        let cells = self.cells(seed);
        let first = of(&cells[0]);
        match self {
            Self::P99(..) | Self::Reports(_) => first.p99 / of(&cells[1]).p99,
            Self::PausesP999 => first.p999 / of(&cells[1]).p999,
            Self::FailingShare(_) => first.failing_share.expect("a server failed"),
            Self::JoinedPeak => first.joined_peak.expect("a server joined"),
            Self::HeavyToLight => first.heavy_to_light.expect("servers have weights"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: [u64; 2] = [1, 2];

    fn verdict(figure: f64, bar: Bar) -> Verdict {
        let hold = Hold { bar, ..ALL[0] };
        hold.judge(vec![figure - 0.1, figure + 0.1]).verdict
    }

    #[test]
    fn a_bar_is_held_by_the_mean_over_the_seeds() {
        let bar = Bar::AtMost(0.5);
        assert_eq!(verdict(0.5, bar), Verdict::Holds);
        assert_eq!(verdict(0.51, bar), Verdict::Fails);
        assert_eq!(verdict(f64::NAN, bar), Verdict::Fails);
    }

    #[test]
    fn what_is_near_may_be_off_either_way() {
        let bar = Bar::Within { off: 0.05, of: 3.0 };
        for (figure, holds) in [(2.84, false), (2.86, true), (3.13, true), (3.16, false)] {
            assert_eq!(bar.holds(figure), holds, "{figure}");
        }
    }

    #[test]
    fn each_cell_is_run_once_for_each_seed() {
        let cells = cells(&ALL, &SEEDS);
        for (nth, cell) in cells.iter().enumerate() {
            assert!(!cells[..nth].contains(cell), "{cell:?}");
        }
        let [one, other] = SEEDS.map(|seed| cells.iter().filter(|cell| cell.seed == seed).count());
        assert_eq!(one, other);
    }
}
