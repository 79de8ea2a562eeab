//! S1 at the end of a chain: clients call a service that calls a service that calls the servers, each with a mesh of its own.

use crate::simulated::{Chain, Meshes};

use super::{
    Mutant, Run,
    figure::Figure,
    outage::{BEFORE, Kind, OUTAGE},
    world::{SECOND, fleet, percent, settings},
};

pub(super) fn run(run: &Run, kind: Kind, load: f64) -> Figure {
    let servers = Meshes::new(settings(run)).failing(kind.failing());
    let told = run.mutant != Some(Mutant::Untold);
    let mut sim = fleet(run, load).start(Chain::new(servers, told));
    sim.run(BEFORE as u32 * SECOND);
    for server in 0..sim.servers().len() {
        kind.begin(&mut sim, server);
    }
    sim.run(OUTAGE as u32 * SECOND);
    let outage = sim.policy().log().within(BEFORE..BEFORE + OUTAGE);
    Figure::at_most(
        format!(
            "at the end of a chain of three attempts a call, {} at {}",
            kind.name(),
            percent(load)
        ),
        // The study's bar is 1.35, which is what three budgets of a tenth come to; that the last one tries again is enough.
        1.2,
        outage.amplification(),
    )
}
