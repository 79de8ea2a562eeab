//! What the contenders are put to.

use std::time::Duration;

use tower_mesh_sim::{Antagonists, Pauses, Scenario, Server, Work};

/// A fleet, and what happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fleet {
    /// All servers are the same.
    Even,
    /// Every third server is half as fast. So it is in all that follow, unless they say otherwise.
    Uneven,
    /// Each server is at half speed for 30 % of the time.
    Antagonists,
    /// Work with a sigma of 1.8: one call in a hundred takes thirteen times the mean.
    HeavyTail,
    /// Every 5 s some server stands still for 500 ms.
    Pauses,
    /// One fast server answers errors within 100 us, for 8 s.
    FailFast,
    /// Antagonists and pauses.
    Everything,
    /// Ten times the clients, so that each makes a tenth of the calls.
    Sparse,
    /// Four clients of nine servers.
    Small,
    /// A server joins an even fleet.
    ColdJoin,
    /// Equal servers, every other one with three times the weight.
    Weights,
    /// The same with a tenth of the clients, so that each has ten times the calls in flight.
    WeightsOfFew,
    /// Every other server has three times the slots, and three times the weight for it.
    Sizes,
}

impl Fleet {
    /// Those that all contenders are put to by `--full`.
    pub const COMPARED: [Self; 9] = [
        Self::Even,
        Self::Uneven,
        Self::Antagonists,
        Self::HeavyTail,
        Self::Pauses,
        Self::FailFast,
        Self::Everything,
        Self::Sparse,
        Self::Small,
    ];

    /// As it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Even => "even",
            Self::Uneven => "uneven",
            Self::Antagonists => "antagonists",
            Self::HeavyTail => "heavy tail",
            Self::Pauses => "pauses",
            Self::FailFast => "one fails fast",
            Self::Everything => "antagonists and pauses",
            Self::Sparse => "500 clients",
            Self::Small => "4 clients, 9 servers",
            Self::ColdJoin => "one joins",
            Self::Weights => "weights 1:3",
            Self::WeightsOfFew => "weights 1:3, 5 clients",
            Self::Sizes => "sizes 1:3",
        }
    }

    /// What happens to it, in a sentence.
    pub fn what(self) -> &'static str {
        match self {
            Self::Even => "All servers are the same.",
            Self::Uneven => {
                "Every third server is half as fast; so it is in all that follow, unless they say otherwise."
            }
            Self::Antagonists => {
                "Each server is at half speed for 30 % of the time, drawn anew every 500 ms in the mean."
            }
            Self::HeavyTail => {
                "Work with a sigma of 1.8: one call in a hundred takes thirteen times the mean."
            }
            Self::Pauses => "Every 5 s some server stands still for 500 ms.",
            Self::FailFast => "One fast server answers errors after 100 us, for 8 of the 11 s.",
            Self::Everything => "Antagonists and pauses.",
            Self::Sparse => "Ten times the clients, so that each makes a tenth of the calls.",
            Self::Small => "Four clients of nine servers.",
            Self::ColdJoin => "A server joins an even fleet when the measurement begins.",
            Self::Weights => {
                "Equal servers, of which every other one has three times the weight, and so little to do that none is slower for it."
            }
            Self::WeightsOfFew => {
                "The same with 5 clients. Of servers with whole numbers of calls in flight the heavy ones are seldom idle, \
                 so a call prefers the light ones: they get more than their weight says."
            }
            Self::Sizes => {
                "Every other server has six slots and weight 3, the others two and weight 1. The strategy evens out latency, and of two servers as busy the larger one has the shorter queue: so it gets more than its weight says."
            }
        }
    }

    /// The fleet at this utilisation.
    pub fn scenario(self, utilisation: f64, seed: u64) -> Scenario {
        let (clients, servers) = match self {
            Self::Sparse => (500, 100),
            Self::Small => (4, 9),
            Self::WeightsOfFew => (5, 100),
            _ => (50, 100),
        };
        let scenario = Scenario::new(seed)
            .clients(clients)
            .servers((0..servers).map(|nth| self.server(nth)));
        let scenario = match self {
            Self::Antagonists => scenario.antagonists(Antagonists::new()),
            Self::Pauses => scenario.pauses(Pauses::default()),
            Self::Everything => scenario
                .antagonists(Antagonists::new())
                .pauses(Pauses::default()),
            Self::HeavyTail => scenario.work(Work::LogNormal {
                mean: Duration::from_millis(10),
                sigma: 1.8,
            }),
            _ => scenario,
        };
        scenario.utilisation(utilisation)
    }

    fn server(self, nth: usize) -> Server {
        match self {
            Self::Even | Self::ColdJoin => Server::new(),
            Self::Weights | Self::WeightsOfFew if nth.is_multiple_of(2) => Server::new(),
            Self::Weights | Self::WeightsOfFew => Server::new().weight(3),
            Self::Sizes if nth.is_multiple_of(2) => Server::new().slots(2),
            Self::Sizes => Server::new().slots(6).weight(3),
            _ if nth.is_multiple_of(3) => Server::new().speed(0.5),
            _ => Server::new(),
        }
    }
}
