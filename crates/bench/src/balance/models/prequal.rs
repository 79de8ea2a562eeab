//! Probing, as in "Load is not what you should balance: Introducing Prequal" (NSDI 2024): each call asks three random
//! servers how busy they are, and goes by what is known from the calls before.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tower::Service;
use tower_mesh::core::{Clock, Instant, Rng};
use tower_mesh_sim::{Answer, Call, Connection, Exchange, Failed, Seat};

/// The paper's parameters.
const POOL: usize = 16;
const PROBES: usize = 3;
const HOT: f64 = 0.84;
const OLDEST: Duration = Duration::from_secs(1);

/// What a server said.
#[derive(Clone, Copy)]
struct Known {
    at: Instant,
    /// How often it may be used still.
    uses: u32,
    said: Answer,
    in_flight: usize,
}

/// Hot-cold lexicographic: of the servers that are not among the busiest the one that answers fastest, else the least busy.
pub(in super::super) struct Prequal {
    servers: Vec<Connection>,
    pool: Arc<Mutex<VecDeque<Known>>>,
    rng: Rng,
    clock: Clock,
    calls: u64,
}

impl Prequal {
    pub(in super::super) fn client(seat: &Seat) -> Self {
        Self {
            servers: seat.connections(),
            pool: Arc::default(),
            rng: seat.rng().clone(),
            clock: seat.clock().clone(),
            calls: 0,
        }
    }

    fn pick(&mut self) -> usize {
        let now = self.clock.now();
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.retain(|known| known.uses > 0 && now.since(known.at) < OLDEST);
        if pool.len() < 2 {
            return self.rng.below(self.servers.len());
        }
        let hot = hot(&pool);
        let best = (0..pool.len()).min_by_key(|nth| rank(&pool[*nth], hot));
        let best = best.expect("there are two");
        let server = pool[best].said.server;
        // A call of our own is there now, whatever was said before.
        pool[best].in_flight += 1;
        pool[best].uses -= 1;
        self.calls += 1;
        if self.calls.is_multiple_of(2) {
            pool.pop_front();
        } else if let Some(worst) = (0..pool.len()).max_by_key(|nth| rank(&pool[*nth], hot)) {
            pool.remove(worst);
        }
        server
    }
}

/// The calls in flight above which a server is hot.
fn hot(pool: &VecDeque<Known>) -> usize {
    let mut busy: Vec<usize> = pool.iter().map(|known| known.in_flight).collect();
    busy.sort_unstable();
    busy[((busy.len() - 1) as f64 * HOT) as usize]
}

/// Less is better.
fn rank(known: &Known, hot: usize) -> (bool, u128) {
    if known.in_flight > hot {
        (true, known.in_flight as u128)
    } else {
        let waits = (known.in_flight + 1) as u128 * known.said.outlook.as_nanos();
        (false, waits / (known.said.in_flight + 1) as u128)
    }
}

impl Service<Call> for Prequal {
    type Response = Answer;
    type Error = Failed;
    type Future = Probing;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Call) -> Probing {
        let server = self.pick();
        let probe = |_| self.servers[self.rng.below(self.servers.len())].probe();
        Probing {
            exchange: self.servers[server].send(),
            probes: (0..PROBES).map(probe).collect(),
            pool: Arc::clone(&self.pool),
            servers: self.servers.len(),
            clock: self.clock.clone(),
        }
    }
}

/// A call, and its questions.
pub(in super::super) struct Probing {
    exchange: Exchange,
    probes: Vec<Exchange>,
    pool: Arc<Mutex<VecDeque<Known>>>,
    servers: usize,
    clock: Clock,
}

impl Probing {
    fn note(&self, said: Answer) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() == POOL {
            pool.pop_front();
        }
        // The paper's reuse: so that the pool neither runs dry nor grows old. Two are added net of the one removed.
        let (added, removed) = (PROBES as f64, 1.0);
        let share = 1.0 - POOL as f64 / self.servers as f64;
        let uses = 2.0 / (share.max(0.1) * added - removed).max(0.5);
        pool.push_back(Known {
            at: self.clock.now(),
            uses: uses.ceil() as u32,
            said,
            in_flight: said.in_flight,
        });
    }
}

impl Future for Probing {
    type Output = Result<Answer, Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut probes = std::mem::take(&mut self.probes);
        probes.retain_mut(|probe| match Pin::new(probe).poll(cx) {
            Poll::Ready(said) => {
                said.into_iter().for_each(|said| self.note(said));
                false
            }
            Poll::Pending => true,
        });
        self.probes = probes;
        Pin::new(&mut self.exchange).poll(cx)
    }
}
