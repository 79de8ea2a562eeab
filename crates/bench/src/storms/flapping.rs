//! S7: every tenth server is up for two seconds and down for two.

use std::{collections::HashMap, time::Duration};

use tower_mesh_sim::{Scenario, Server};

use crate::simulated::{Failing, Meshes};

use super::{
    Run, Size,
    chance::Chance,
    figure::Figure,
    world::{SECOND, World, endpoint, percent, quantile, settings},
};

const BEFORE: usize = 10;
const FLAPS: usize = 40;
const SERVERS: usize = 20;
const FLAPPING: [usize; 2] = [3, 13];

pub(super) fn run(run: &Run) -> Vec<Figure> {
    let loads = Chance::new(run).loads();
    loads.into_iter().flat_map(|load| one(run, load)).collect()
}

fn scenario(run: &Run, load: f64) -> Scenario {
    let clients = match run.size {
        Size::Full => 20,
        Size::Small => 5,
    };
    Scenario::new(run.seed)
        .servers(vec![server(run); SERVERS])
        .clients(clients)
        .utilisation(load)
}

fn server(run: &Run) -> Server {
    Server::new().slots(match run.size {
        Size::Full => 4,
        Size::Small => 1,
    })
}

fn one(run: &Run, load: f64) -> Vec<Figure> {
    let settings = settings(run);
    let failing = Chance::new(run).one_of(&[Failing::Broken, Failing::Unreachable]);
    let meshes = Meshes::new(settings.clone()).failing(failing);
    let mut world = World::of(&scenario(run, load), &settings, meshes);
    let mut rests = Rests::default();
    world.run(BEFORE as u32 * SECOND);
    for _ in 0..FLAPS {
        FLAPPING
            .iter()
            .for_each(|server| world.sim.fail(*server, Duration::ZERO));
        world.watch(2 * SECOND, |world| rests.look(world));
        FLAPPING.iter().for_each(|server| world.sim.heal(*server));
        world.watch(2 * SECOND, |world| rests.look(world));
    }

    let (start, end) = (BEFORE, BEFORE + 4 * FLAPS);
    let all = world.log.within(start..end);
    let attempts = world.log.attempts();
    let of_others = |from: usize, to: usize| {
        let (from, to) = (from as u32 * SECOND, to as u32 * SECOND);
        let within = attempts
            .iter()
            .filter(|sent| sent.at >= from && sent.at < to);
        let others = within.filter(|sent| !FLAPPING.contains(&sent.server) && sent.answered);
        let mut times: Vec<_> = others.map(|sent| sent.took).collect();
        times.sort_unstable();
        quantile(&times, 0.99)
    };
    let p99 = of_others(start, end);
    let failed = attempts.iter().filter(|sent| {
        FLAPPING.contains(&sent.server) && !sent.answered && sent.at >= start as u32 * SECOND
    });
    let name = |what: &str| format!("{what}, at {}", percent(load));
    let mut figures = vec![
        Figure::at_most(
            name("calls lost, as a share of all"),
            0.01,
            all.lost as f64 / all.calls as f64,
        ),
        Figure::at_most(
            name("attempts that they fail, as a share of calls"),
            0.01,
            failed.count() as f64 / all.calls as f64,
        ),
        Figure::at_least(
            name("the longest time out of one of them to its first"),
            4.0,
            rests.growth(),
        ),
        Figure::at_most(
            name("ejections shorter than their number in a row says"),
            0.0,
            rests.short as f64,
        ),
        Figure::at_most(
            name("the others' p99 to what it was before"),
            1.1,
            p99 / of_others(2, start),
        ),
        Figure::at_most(
            name("the others' p99 to that of a fleet without them"),
            1.1,
            p99 / without(run, load),
        ),
    ];
    figures.extend(world.invariants());
    figures
}

/// The p99 of attempts in a fleet that has as much to do, and never had those that flap: of the mesh as it is, whatever is
/// broken in the run.
fn without(run: &Run, load: f64) -> f64 {
    let run = &Run {
        mutant: None,
        ..*run
    };
    let all = scenario(run, load);
    let few = all.clone().rate(load * all.capacity());
    let few = few.servers(vec![server(run); SERVERS - FLAPPING.len()]);
    let mut world = World::new(&few, &settings(run));
    world.run((BEFORE + 4 * FLAPS) as u32 * SECOND);
    let attempts = world.log.attempts();
    let late = attempts
        .iter()
        .filter(|sent| sent.at >= BEFORE as u32 * SECOND && sent.answered);
    let mut times: Vec<_> = late.map(|sent| sent.took).collect();
    times.sort_unstable();
    quantile(&times, 0.99)
}

/// How long those that flap are out, by breaker or ejected, and how long they are said to be ejected.
#[derive(Default)]
struct Rests {
    /// By client and server: whether it is out now, and how long it was each time, in looks.
    out: HashMap<(usize, usize), (bool, Vec<u32>)>,
    /// Ejections that were shorter than their number in a row says.
    short: usize,
    /// How often it was ejected in a row, by client and server.
    times: HashMap<(usize, usize), u32>,
}

/// An ejection is as many times as long as it is the how manieth in a row, up to ten.
const EACH: Duration = Duration::from_secs(30);
const MOST: u32 = 10;

impl Rests {
    fn look(&mut self, world: &mut World) {
        for (client, status) in world.statuses().into_iter().enumerate() {
            for server in FLAPPING {
                let endpoint = endpoint(&status, server);
                self.look_at((client, server), endpoint.gate != "open");
                let Some(ejected) = &endpoint.ejected else {
                    self.times.remove(&(client, server));
                    continue;
                };
                let known = self.times.insert((client, server), ejected.times);
                // Seen up to 100 ms late.
                let least = ejected.times.min(MOST) * EACH - SECOND / 5;
                self.short += usize::from(known.is_none() && ejected.rest < least);
            }
        }
    }

    fn look_at(&mut self, who: (usize, usize), out: bool) {
        let (before, times) = self.out.entry(who).or_default();
        if out && !*before {
            times.push(0);
        }
        if out {
            *times.last_mut().expect("it is out") += 1;
        }
        *before = out;
    }

    /// The longest time out to the first one: the median over clients and servers.
    fn growth(&self) -> f64 {
        let growth = self.out.values().filter_map(|(_, times)| {
            let longest = times.iter().max()?;
            Some(f64::from(*longest) / f64::from(*times.first()?))
        });
        let mut growth: Vec<_> = growth.collect();
        growth.sort_by(f64::total_cmp);
        growth.get(growth.len() / 2).copied().unwrap_or_default()
    }
}
