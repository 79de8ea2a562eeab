//! S9: every server fails; then one of them is back.

use std::{collections::HashSet, time::Duration};

use crate::simulated::{Failing, Meshes};

use super::{
    Run,
    chance::Chance,
    figure::Figure,
    world::{SECOND, World, fleet, settings},
};

const BEFORE: usize = 5;
const OUTAGE: usize = 60;
const AFTER: usize = 90;
/// So little that one server can do all of it.
const LOAD: f64 = 0.05;
const SERVERS: usize = 10;
/// What a call ends with all of whose attempts have failed.
const TRIED: [&str; 2] = ["attempts_exhausted", "status"];
const NO_ENDPOINT: &str = "no_endpoint";

pub(super) fn run(run: &Run) -> Vec<Figure> {
    let settings = settings(run);
    let chance = Chance::new(run);
    let failing = chance.one_of(&[Failing::Broken, Failing::Unreachable, Failing::Overloaded]);
    let meshes = Meshes::new(settings.clone()).failing(failing);
    let mut world = World::of(&fleet(run, LOAD), &settings, meshes);
    world.run(BEFORE as u32 * SECOND);
    world.all(|sim, server| sim.fail(server, Duration::ZERO));
    world.run(OUTAGE as u32 * SECOND);
    world.sim.heal(chance.one_of(&[0, 3, 9]));
    world.run(AFTER as u32 * SECOND);

    let back = BEFORE + OUTAGE;
    let late = |at: Duration| at >= (back as u32 - 10) * SECOND && at < back as u32 * SECOND;
    let attempts = world.log.attempts();
    let late = attempts.iter().filter(|sent| late(sent.at));
    let tried: HashSet<_> = late.map(|sent| sent.server).collect();
    let clients = world.sim.policy().rooms().len();
    let kinds = world.log.kinds();
    // Of a call that was tried the last attempt's failure is told.
    let refusals = kinds.keys().filter(|kind| !TRIED.contains(kind));
    let unjustly = world
        .log
        .ended_with(NO_ENDPOINT, (back + 2) as u32 * SECOND);
    let outage = world.log.within(BEFORE + 5..back);
    let mut figures = vec![
        Figure::at_least(
            "servers that are tried in the last ten seconds of the outage",
            SERVERS as f64,
            tried.len() as f64,
        ),
        // What a leased probe a second comes to.
        Figure::at_most(
            "attempts a second of one client at one of them, while all fail",
            1.0,
            outage.attempts as f64 / ((back - BEFORE - 5) * SERVERS * clients) as f64,
        ),
        Figure::at_most("kinds of refusal", 1.0, refusals.count() as f64),
        Figure::at_most(
            "calls refused for want of an endpoint, two seconds after one is back",
            0.0,
            unjustly as f64,
        ),
        Figure::at_least(
            "calls that the one answers that is back, as a share of all",
            0.95,
            world.log.within(back + 5..back + AFTER).goodput(),
        ),
    ];
    figures.extend(world.invariants());
    figures
}
