//! Who is compared.

use std::num::NonZeroU32;

use tower_mesh::{Policy, balance::Strategy, core::Ratio};
use tower_mesh_sim::policies::{LeastInFlight, Random, RoundRobin};

use crate::simulated::Meshes;

use super::{
    cell::{Cell, Measured, measure},
    models::{BestOfThree, Prequal, Terms},
    tower_peak,
};

/// A way to choose servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contender {
    /// The shipped `MeshService` with the default policy: retries and endpoints' breakers on.
    Mesh,
    /// The same without breakers and without ejection: the strategy is alone with what fails.
    MeshWithoutJudges,
    /// The shipped `MeshService` that goes by what servers say of their load, too.
    MeshWithReports,
    /// The better of two random servers by calls in flight.
    LeastInFlight,
    /// Tower's own balancer: the better of two by peak-EWMA x (in flight + 1).
    TowerPeakEwma,
    /// A random server.
    Random,
    /// One after the other.
    RoundRobin,
    /// A model of the mesh's strategy, without the mesh.
    Model(Terms),
    /// Probing, which needs servers that answer questions.
    Prequal,
}

impl Contender {
    /// Those that `--full` compares.
    pub const COMPARED: [Self; 6] = [
        Self::Mesh,
        Self::MeshWithReports,
        Self::LeastInFlight,
        Self::TowerPeakEwma,
        Self::RoundRobin,
        Self::Random,
    ];

    /// Those that are not built, and may be worth it where servers run the mesh, too; and what they are to be compared with.
    pub const STUDIED: [Self; 3] = [
        Self::Model(Terms::All),
        Self::Model(Terms::WithReports),
        Self::Prequal,
    ];

    /// As it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mesh => "tower-mesh",
            Self::MeshWithoutJudges => "tower-mesh, no judges",
            Self::MeshWithReports => "tower-mesh with reports",
            Self::LeastInFlight => "least in flight",
            Self::TowerPeakEwma => "tower peak-EWMA",
            Self::Random => "random",
            Self::RoundRobin => "round robin",
            Self::Model(Terms::All) => "model of the strategy",
            Self::Model(Terms::WithoutSuccess) => "model without success",
            Self::Model(Terms::WithReports) => "model with server reports",
            Self::Prequal => "Prequal (probes)",
        }
    }

    /// Runs the cell.
    pub(super) fn run(self, cell: &Cell) -> Measured {
        match self {
            Self::Mesh => measure(cell, Meshes::new(Policy::default())),
            Self::MeshWithoutJudges => measure(cell, Meshes::new(without_judges())),
            Self::MeshWithReports => measure(cell, Meshes::new(with_reports())),
            Self::LeastInFlight => measure(cell, LeastInFlight::client),
            Self::TowerPeakEwma => tower_peak::measure(cell),
            Self::Random => measure(cell, Random::client),
            Self::RoundRobin => measure(cell, RoundRobin::client),
            Self::Model(terms) => measure(cell, |seat: &_| BestOfThree::client(seat, terms)),
            Self::Prequal => measure(cell, Prequal::client),
        }
    }
}

/// As by default, but for the strategy.
fn with_reports() -> Policy {
    let mut policy = Policy::default();
    policy.balance = Strategy::Reported;
    policy
}

/// No ejection, and breakers that open only when nothing has succeeded for ten seconds: none is that bad here.
fn without_judges() -> Policy {
    let mut policy = Policy::default();
    policy.breaker.consecutive_failures = NonZeroU32::MAX;
    policy.breaker.failure_rate = Ratio::percent(100);
    policy.ejection.enabled = false;
    policy
}
