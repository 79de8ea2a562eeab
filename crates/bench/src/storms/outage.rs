//! S1: for ten seconds nothing is answered in time, and clients go on calling.

use std::time::Duration;

use tower_mesh_sim::{Policy, Simulation};

use crate::simulated::{Failing, Meshes};

use super::{
    Run, chain,
    chance::Chance,
    figure::Figure,
    world::{SECOND, World, fleet, percent, settings},
};

/// What the servers do meanwhile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// They answer with an error at once.
    Refuse(Failing),
    /// They stand still; what they were given is done afterwards, also for those who have gone.
    Hang,
    /// They are four times slower.
    Slow,
}

const KINDS: [Kind; 5] = [
    Kind::Refuse(Failing::Broken),
    Kind::Refuse(Failing::Overloaded),
    Kind::Refuse(Failing::Unreachable),
    Kind::Hang,
    Kind::Slow,
];

pub(super) const BEFORE: usize = 5;
pub(super) const OUTAGE: usize = 10;
const AFTER: usize = 20;

pub(super) fn run(run: &Run) -> Vec<Figure> {
    let chance = Chance::new(run);
    let mut figures = Vec::new();
    for kind in chance.some_of(&KINDS) {
        let loads = chance.loads();
        for load in &loads {
            figures.extend(one(run, kind, *load));
        }
        figures.push(chain::run(run, kind, loads[0]));
    }
    figures
}

fn one(run: &Run, kind: Kind, load: f64) -> Vec<Figure> {
    let settings = settings(run);
    let meshes = Meshes::new(settings.clone()).failing(kind.failing());
    let mut world = World::of(&fleet(run, load), &settings, meshes);
    world.run(BEFORE as u32 * SECOND);
    world.all(|sim, server| kind.begin(sim, server));
    world.run(OUTAGE as u32 * SECOND);
    world.all(|sim, server| kind.end(sim, server));
    world.run(AFTER as u32 * SECOND);

    let (outage, all) = (BEFORE..BEFORE + OUTAGE, BEFORE + OUTAGE + AFTER);
    let seconds = world.log.seconds();
    let most = |range: std::ops::Range<usize>| -> f64 {
        let amplifications = seconds[range].iter().map(|second| second.amplification());
        amplifications.fold(0.0, f64::max)
    };
    let back = if load > 0.7 { 5.0 } else { 2.0 };
    let name = |what: &str| format!("{what}, {} at {}", kind.name(), percent(load));
    let mut figures = vec![
        Figure::at_most(
            name("attempts a call over the outage"),
            1.2,
            world.log.within(outage.clone()).amplification(),
        ),
        Figure::at_most(
            name("attempts a call in its worst second"),
            1.25,
            most(outage.clone()),
        ),
        Figure::at_most(
            name("seconds until 95 % are answered again"),
            back,
            world.recovery(outage.end..all),
        ),
        Figure::at_most(
            name("attempts a call in the worst second after it"),
            1.1,
            most(outage.end..all),
        ),
    ];
    figures.extend(world.invariants());
    figures
}

impl Kind {
    pub(super) fn name(self) -> String {
        match self {
            Self::Refuse(Failing::Broken) => "refused with 500".to_owned(),
            Self::Refuse(Failing::Overloaded) => "refused with 503".to_owned(),
            Self::Refuse(Failing::Unreachable) => "unreachable".to_owned(),
            Self::Hang => "hanging".to_owned(),
            Self::Slow => "four times slower".to_owned(),
        }
    }

    pub(super) fn failing(self) -> Failing {
        match self {
            Self::Refuse(failing) => failing,
            Self::Hang | Self::Slow => Failing::Broken,
        }
    }

    pub(super) fn begin<P: Policy>(self, sim: &mut Simulation<P>, server: usize) {
        match self {
            Self::Refuse(_) => sim.fail(server, Duration::ZERO),
            Self::Hang => sim.freeze(server),
            Self::Slow => sim.slow(server, 0.25),
        }
    }

    fn end<P: Policy>(self, sim: &mut Simulation<P>, server: usize) {
        match self {
            Self::Refuse(_) => sim.heal(server),
            Self::Hang => sim.thaw(server),
            Self::Slow => sim.slow(server, 1.0),
        }
    }
}
