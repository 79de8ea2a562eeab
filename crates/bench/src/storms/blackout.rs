//! S6: the registry is out for ten minutes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::stream::{self, StreamExt};
use tower_mesh::{
    Endpoint, ServiceName,
    core::{Clock, Empties, Instant, Resolve, ResolveError, Update, Updates},
};
use tower_mesh_sim::{Scenario, Seat, Server};

use crate::simulated::{Meshes, endpoint_of};

use super::{
    Mutant, Run, Size,
    chance::Chance,
    figure::Figure,
    world::{SECOND, World, settings},
};

/// What the registry answers with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Well,
    Error,
    Nothing,
    Empty,
    /// One of all.
    One,
}

const BEFORE: Duration = Duration::from_secs(30);
const OUTAGE: Duration = Duration::from_secs(600);
const AFTER: Duration = Duration::from_secs(60);
/// For how long it claims that most endpoints are gone, before it fails to confirm that: less than `empty_grace`, after
/// which a registry that keeps to it is believed.
const CLAIMS: Duration = Duration::from_secs(20);

pub(super) fn run(run: &Run) -> Vec<Figure> {
    let kinds = [Answer::Error, Answer::Nothing, Answer::Empty, Answer::One];
    let kinds = Chance::new(run).some_of(&kinds);
    kinds.into_iter().flat_map(|kind| one(run, kind)).collect()
}

fn one(run: &Run, kind: Answer) -> Vec<Figure> {
    let (clients, rate) = match run.size {
        Size::Full => (20, 500.0),
        Size::Small => (3, 60.0),
    };
    let scenario = Scenario::new(run.seed)
        .servers(vec![Server::new(); 50])
        .clients(clients)
        .rate(rate);
    let (registry, settings) = (Registry::default(), settings(run));
    let credulous = run.mutant == Some(Mutant::Credulous);
    let source = registry.clone();
    let meshes = Meshes::new(settings.clone()).found_by(move |seat| {
        Arc::new(Client::new(seat, source.clone(), credulous)) as Arc<dyn Resolve>
    });
    let mut world = World::of(&scenario, &settings, meshes);
    world.run(BEFORE);
    world.sim.reset();
    registry.turns(kind);
    world.run(CLAIMS);
    // A registry that has lost its memory fails, or has it back; one that fails goes on failing.
    if kind != Answer::Nothing {
        registry.turns(Answer::Error);
    }
    world.run(OUTAGE - CLAIMS);
    let statuses = world.statuses();
    registry.turns(Answer::Well);
    world.run(AFTER);

    let servers = 50.0;
    let fewest = statuses.iter().map(|status| status.endpoints.len()).min();
    let silent = statuses.iter().filter(|status| {
        let known = &status.discovery;
        // A registry that hangs cannot be told from one that has nothing new: its age is all there is to see.
        let told = known.error.is_some() || kind == Answer::Nothing;
        let old = known.age.is_some_and(|age| age >= OUTAGE - CLAIMS);
        !(told && old)
    });
    let asked = registry.asked();
    let lost = world.sim.report().failed();
    let name = |what: &str| format!("{what}, {}", kind.name());
    let mut figures = vec![
        Figure::at_most(name("calls lost"), 0.0, lost as f64),
        Figure::at_least(
            name("endpoints that are still known"),
            servers,
            fewest.unwrap_or_default() as f64,
        ),
        Figure::at_most(
            name("clients whose status does not say so"),
            0.0,
            silent.count() as f64,
        ),
        Figure::at_most(
            name("questions of one client within a second"),
            1.0,
            asked.most_within_a_second() as f64,
        ),
        Figure::at_most(
            name("the longest pause before a registry that fails is asked again, s"),
            // Beside the pause itself, the 100 ms after an error that the driver always waits, and our ticks.
            30.2,
            asked.longest(),
        ),
    ];
    if kind != Answer::Nothing && clients > 10 {
        figures.push(Figure::at_most(
            name("questions of all clients within 100 ms, late in the outage"),
            0.25 * clients as f64,
            asked.most_together() as f64,
        ));
    }
    figures.extend(world.invariants());
    figures
}

impl Answer {
    fn name(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Error => "it fails",
            Self::Nothing => "it hangs",
            Self::Empty => "it has none, then fails",
            Self::One => "it has one of 50, then fails",
        }
    }
}

/// The registry that all clients ask.
#[derive(Clone, Default)]
struct Registry(Arc<Mutex<State>>);

struct State {
    answer: Answer,
    /// When each client has asked since it is out.
    asked: HashMap<usize, Vec<Instant>>,
    /// Wakes those who wait for a change.
    turned: tokio::sync::watch::Sender<u64>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            answer: Answer::Well,
            asked: HashMap::new(),
            turned: tokio::sync::watch::Sender::new(0),
        }
    }
}

impl Registry {
    /// From now on it answers so; who waits for a change hears at once.
    fn turns(&self, answer: Answer) {
        let mut state = self.lock();
        state.answer = answer;
        state.turned.send_modify(|turns| *turns += 1);
    }

    fn asked(&self) -> Asked {
        Asked(self.lock().asked.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One client's way to it. A question waits for a change, as Consul's blocking queries do; an answer ends it.
struct Client {
    client: usize,
    clock: Clock,
    all: Vec<Endpoint>,
    registry: Registry,
    credulous: bool,
}

impl Client {
    fn new(seat: &Seat, registry: Registry, credulous: bool) -> Self {
        Self {
            client: seat.client(),
            clock: seat.clock().clone(),
            all: seat.members().iter().map(endpoint_of).collect(),
            registry,
            credulous,
        }
    }
}

impl Resolve for Client {
    fn resolve(&self, _: &ServiceName) -> Updates {
        let mut state = self.registry.lock();
        let answer = state.answer;
        if answer != Answer::Well {
            let asked = state.asked.entry(self.client).or_default();
            asked.push(self.clock.now());
        }
        let turned = state.turned.subscribe();
        drop(state);
        let (registry, all) = (self.registry.clone(), self.all.clone());
        let first = reply(answer, &all);
        let Some(first) = first else {
            return stream::pending().boxed();
        };
        if first.is_err() {
            return stream::iter([first]).boxed();
        }
        // Until it fails, each turn is told to who waits.
        let changes = stream::unfold(false, move |over| {
            let (registry, all, mut turned) = (registry.clone(), all.clone(), turned.clone());
            async move {
                if over {
                    return None;
                }
                turned.changed().await.ok()?;
                let answer = registry.lock().answer;
                match reply(answer, &all) {
                    Some(reply) => {
                        let over = reply.is_err();
                        Some((reply, over))
                    }
                    None => std::future::pending().await,
                }
            }
        });
        stream::iter([first]).chain(changes).boxed()
    }

    fn empties(&self) -> Empties {
        match self.credulous {
            true => Empties::Authoritative,
            false => Empties::Suspect,
        }
    }

    fn name(&self) -> &'static str {
        "registry"
    }
}

fn reply(answer: Answer, all: &[Endpoint]) -> Option<Result<Update, ResolveError>> {
    Some(match answer {
        Answer::Well => Ok(Update::Replace(all.to_vec())),
        Answer::Error => Err(ResolveError::new("500")),
        Answer::Nothing => return None,
        Answer::Empty => Ok(Update::Replace(Vec::new())),
        Answer::One => Ok(Update::Replace(all[..1].to_vec())),
    })
}

/// When each client has asked.
struct Asked(HashMap<usize, Vec<Instant>>);

impl Asked {
    fn most_within_a_second(&self) -> usize {
        let most = |asked: &Vec<Instant>| {
            let within = |from: &Instant| {
                let later = asked.iter().filter(|at| *at >= from);
                later.filter(|at| at.since(*from) < SECOND).count()
            };
            asked.iter().map(within).max().unwrap_or_default()
        };
        self.0.values().map(most).max().unwrap_or_default()
    }

    /// The longest pause between two questions of a client, in seconds.
    fn longest(&self) -> f64 {
        let pauses = self.0.values().flat_map(|asked| asked.windows(2));
        let pauses = pauses.map(|pair| pair[1].since(pair[0]).as_secs_f64());
        pauses.fold(0.0, f64::max)
    }

    /// The most questions of all clients within 100 ms, once pauses are at their longest.
    fn most_together(&self) -> usize {
        let first = self.0.values().flatten().min().copied();
        let Some(first) = first else { return 0 };
        let mut tenths = HashMap::new();
        for at in self.0.values().flatten() {
            let since = at.since(first);
            if since > OUTAGE / 4 {
                *tenths.entry(since.as_millis() / 100).or_insert(0) += 1;
            }
        }
        tenths.values().copied().max().unwrap_or_default()
    }
}
