//! S8: every server is replaced within a minute. One that goes is taken out of the registry, works on for five seconds, and is
//! gone.

use tower_mesh_sim::Server;

use crate::simulated::{Failing, Meshes};

use super::{
    Mutant, Run, Size,
    chance::Chance,
    figure::Figure,
    world::{SECOND, World, fleet, percent, settings},
};

const BEFORE: u32 = 5;
const SERVERS: usize = 10;
const EACH: u32 = 6;
const DRAINS: u32 = 5;

pub(super) fn run(run: &Run) -> Vec<Figure> {
    let loads = Chance::new(run).loads();
    loads.into_iter().flat_map(|load| one(run, load)).collect()
}

fn one(run: &Run, load: f64) -> Vec<Figure> {
    let settings = settings(run);
    let meshes = Meshes::new(settings.clone()).failing(Failing::Unreachable);
    let mut world = World::of(&fleet(run, load), &settings, meshes);
    let slots = match run.size {
        Size::Full => 8,
        Size::Small => 2,
    };
    let told_late = run.mutant == Some(Mutant::ToldLate);
    world.run(BEFORE * SECOND);
    let tasks = world.sim.policy().rooms()[0].mesh.tasks();
    for old in 0..SERVERS {
        world.sim.join(Server::new().slots(slots));
        if !told_late {
            world.leave(old);
        }
        world.run(DRAINS * SECOND);
        world.sim.fail(old, std::time::Duration::ZERO);
        world.run((EACH - DRAINS) * SECOND);
        if told_late && old > 0 {
            world.leave(old - 1);
        }
    }
    world.run(DRAINS * SECOND);
    let known = world
        .statuses()
        .into_iter()
        .map(|s| s.endpoints.len())
        .max();
    let more = world.sim.policy().rooms()[0].mesh.tasks() - tasks;
    let left: usize = (0..SERVERS).map(|old| world.sim.in_flight(old)).sum();
    world.sim.drain();

    let lost = world.sim.report().failed() + world.sim.report().unfinished();
    let attempts = world.log.attempts();
    let failed = attempts
        .iter()
        .filter(|sent| sent.server < SERVERS && !sent.answered);
    let name = |what: &str| format!("{what}, at {}", percent(load));
    let mut figures = vec![
        Figure::at_most(name("calls lost"), 0.0, lost as f64),
        Figure::at_most(
            name("attempts that failed at a server that went"),
            0.0,
            failed.count() as f64,
        ),
        Figure::at_most(name("attempts left at servers that went"), 0.0, left as f64),
        Figure::at_most(name("background tasks more than before"), 0.0, more as f64),
        Figure::at_most(
            name("endpoints known in the end"),
            SERVERS as f64,
            known.unwrap_or_default() as f64,
        ),
    ];
    figures.extend(world.invariants());
    figures
}
