//! S4: every client's breakers have opened, and what was behind them comes back with a fifth of its capacity.

use std::{collections::HashMap, time::Duration};

use tower_mesh_sim::{Scenario, Server};

use crate::simulated::{Failing, Meshes};

use super::{
    Run, Size,
    chance::Chance,
    figure::Figure,
    world::{MS, SECOND, World, endpoint, percent, settings},
};

const SERVERS: usize = 10;
const BEFORE: usize = 5;
const OUTAGE: usize = 20;
const AFTER: usize = 20;
/// What the servers can do in each of the seconds after the outage.
const RAMP: [f64; 5] = [0.2, 0.4, 0.6, 0.8, 1.0];

pub(super) fn run(run: &Run) -> Vec<Figure> {
    let loads = Chance::new(run).loads();
    loads.into_iter().flat_map(|load| one(run, load)).collect()
}

fn scenario(run: &Run, load: f64) -> Scenario {
    let (slots, clients) = match run.size {
        Size::Full => (8, 500),
        Size::Small => (2, 50),
    };
    Scenario::new(run.seed)
        .servers(vec![Server::new().slots(slots); SERVERS])
        .clients(clients)
        .utilisation(load)
}

fn one(run: &Run, load: f64) -> Vec<Figure> {
    let (scenario, settings) = (scenario(run, load), settings(run));
    let failing = Chance::new(run).one_of(&[Failing::Broken, Failing::Unreachable]);
    let meshes = Meshes::new(settings.clone()).failing(failing);
    let mut world = World::of(&scenario, &settings, meshes);
    let mut opened = Opened::default();
    world.run(BEFORE as u32 * SECOND);
    world.all(|sim, server| sim.fail(server, Duration::ZERO));
    world.watch(OUTAGE as u32 * SECOND, |world| opened.look(world));
    let before = openings(&mut world);
    world.all(|sim, server| sim.heal(server));
    for left in RAMP {
        world.all(|sim, server| sim.slow(server, left));
        world.run(SECOND);
    }
    world.run((AFTER - RAMP.len()) as u32 * SECOND);

    let back = BEFORE + OUTAGE;
    let reopened = openings(&mut world).into_iter().zip(before);
    let reopened = reopened.map(|(after, before)| after - before).max();
    let first = world.log.within(back..back + 1).attempts as f64;
    let name = |what: &str| format!("{what}, at {}", percent(load));
    let mut figures = vec![
        Figure::at_most(
            name("probes of one client at one server at once"),
            1.0,
            f64::from(world.log.most_probes()),
        ),
        Figure::at_least(
            name("the longest open time to the shortest, all opened once"),
            1.4,
            opened.spread(),
        ),
        Figure::at_most(
            name("attempts in the first second to what all can do"),
            1.5,
            first / scenario.capacity(),
        ),
        Figure::at_most(
            name("attempts in the first second to the fifth that can be done in it"),
            1.5,
            first / (RAMP[0] * scenario.capacity()),
        ),
        Figure::at_most(
            name("how often a breaker opens again"),
            3.0,
            reopened.unwrap_or_default() as f64,
        ),
        Figure::at_most(
            name("seconds until 95 % are answered again"),
            10.0,
            world.recovery(back..back + AFTER),
        ),
    ];
    figures.extend(world.invariants());
    figures
}

/// How often each breaker has opened, client by client.
fn openings(world: &mut World) -> Vec<u64> {
    let statuses = world.statuses();
    let endpoints = statuses.iter().flat_map(|status| &status.endpoints);
    let opened = endpoints.map(|endpoint| endpoint.breaker.as_ref().map_or(0, |b| b.opened));
    opened.collect()
}

/// For how long breakers open the first time.
#[derive(Default)]
struct Opened(HashMap<(usize, usize), Duration>);

impl Opened {
    /// Clients whose breakers are looked at.
    const CLIENTS: usize = 50;

    fn look(&mut self, world: &mut World) {
        for client in 0..Self::CLIENTS {
            let status = world.status(client);
            for server in 0..SERVERS {
                let Some(breaker) = &endpoint(&status, server).breaker else {
                    continue;
                };
                if let (1, Some(rest)) = (breaker.opened, breaker.retry_after) {
                    let since = world.log.last_failed(client, server);
                    let until = world.log.now() + rest;
                    let open = until - since.expect("it opened for that");
                    self.0.entry((client, server)).or_insert(open);
                }
            }
        }
    }

    fn spread(&self) -> f64 {
        let (least, most) = (self.0.values().min(), self.0.values().max());
        match (least, most) {
            (Some(least), Some(most)) if *least > MS => most.as_secs_f64() / least.as_secs_f64(),
            _ => f64::NAN,
        }
    }
}
