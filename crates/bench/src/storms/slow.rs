//! S2: for a minute the servers have a quarter of their capacity.

use super::{
    Run,
    chance::Chance,
    figure::Figure,
    world::{SECOND, World, fleet, percent, quantile, settings},
};

const BEFORE: usize = 5;
const SLOW: usize = 60;
const LEFT: f64 = 0.25;

pub(super) fn run(run: &Run) -> Vec<Figure> {
    let loads = Chance::new(run).loads();
    loads.into_iter().flat_map(|load| one(run, load)).collect()
}

fn one(run: &Run, load: f64) -> Vec<Figure> {
    let scenario = fleet(run, load);
    let mut world = World::new(&scenario, &settings(run));
    world.run(BEFORE as u32 * SECOND);
    world.all(|sim, server| sim.slow(server, LEFT));
    world.sim.reset();
    world.run(SLOW as u32 * SECOND);

    let answered = world.log.within(BEFORE..BEFORE + SLOW).answered as f64;
    let possible = LEFT * scenario.capacity() * SLOW as f64;
    let servers = world.sim.servers();
    let done: u64 = servers.iter().map(|server| server.answers).sum();
    let unheard: u64 = servers.iter().map(|server| server.unheard).sum();
    let refusals = world.log.refusals(BEFORE as u32 * SECOND);
    let name = |what: &str| format!("{what}, at {}", percent(load));
    let mut figures = vec![
        Figure::at_least(
            name("calls answered as a share of what the servers can do"),
            0.9,
            answered / possible,
        ),
        Figure::at_most(
            name("work for callers who have gone, as a share of all"),
            0.05,
            unheard as f64 / done.max(1) as f64,
        ),
        Figure::at_most(
            name("p99 of the time to refuse a call, ms"),
            5.0,
            1e3 * quantile(&refusals, 0.99),
        ),
    ];
    figures.extend(world.invariants());
    figures
}
