//! S5: a server joins a hundred.

use std::time::Duration;

use tower_mesh_sim::{Scenario, Server, Work};

use super::{
    Run, Size,
    chance::Chance,
    figure::Figure,
    world::{MS, World, percent, settings},
};

const BEFORE: Duration = Duration::from_secs(4);
/// Slow start's default, half as long again.
const WITHIN: Duration = Duration::from_secs(45);
/// As long as a herd would be about.
const NEW: Duration = Duration::from_secs(10);
/// Over which its share is taken then.
const MEASURED: Duration = Duration::from_secs(10);

pub(super) fn run(run: &Run) -> Vec<Figure> {
    let loads = Chance::new(run).loads();
    loads.into_iter().flat_map(|load| one(run, load)).collect()
}

fn scenario(run: &Run, load: f64) -> Scenario {
    let scenario = Scenario::new(run.seed);
    let scenario = match run.size {
        Size::Full => scenario.servers(vec![Server::new(); 100]).clients(500),
        Size::Small => scenario
            .servers(vec![Server::new(); 20])
            .work(Work::LogNormal {
                mean: 40 * MS,
                sigma: 0.8,
            })
            .clients(50),
    };
    scenario.utilisation(load)
}

fn one(run: &Run, load: f64) -> Vec<Figure> {
    let mut world = World::new(&scenario(run, load), &settings(run));
    world.run(BEFORE);
    world.sim.reset();
    let joined = world.sim.join(Server::new());
    world.run(NEW);
    let peak = world.sim.peak_in_flight(joined);
    world.run(WITHIN - NEW);
    let early = world.sim.servers();
    world.run(MEASURED);
    let servers = world.sim.servers();

    let others = &servers[..joined];
    let usual: f64 = others.iter().map(|server| server.in_flight).sum();
    let usual = usual / others.len() as f64;
    let mut peaks: Vec<_> = others.iter().map(|server| server.peak_in_flight).collect();
    peaks.sort_unstable();
    let all_along = servers[joined].peak_in_flight as f64;
    let late = |server: usize| (servers[server].attempts - early[server].attempts) as f64;
    let all: f64 = (0..servers.len()).map(late).sum();
    let lost = world.sim.report().failed();
    let name = |what: &str| format!("{what}, at {}", percent(load));
    let mut figures = vec![
        Figure::at_most(
            name("its peak in flight while it is new to what others have"),
            3.0,
            peak as f64 / usual,
        ),
        // All along every server has peaks that are many times its mean; it has no higher ones than others.
        Figure::at_most(
            name("its peak in flight all along to the median of others' peaks"),
            1.5,
            all_along / peaks[peaks.len() / 2] as f64,
        ),
        Figure::at_most(name("calls lost"), 0.0, lost as f64),
        Figure::at_least(
            name("its share after one and a half slow starts"),
            0.9,
            late(joined) / (all / servers.len() as f64),
        ),
    ];
    figures.extend(world.invariants());
    figures
}
