//! Strategies without the mesh: its own, to show what each term is good for, and others that may be worth having.

mod prequal;

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tower::Service;
use tower_mesh::core::{Attempt, Clock, Finish, Instant, Load, Outcome, Rng, Sampling, Vitals};
use tower_mesh_sim::{Answer, Call, Connection, Exchange, Failed, Seat};

pub(super) use self::prequal::Prequal;

/// What a model of the mesh's strategy goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Terms {
    /// Latency, calls in flight, success: as the mesh.
    All,
    /// Success does not count: the mutant that has to be found.
    WithoutSuccess,
    /// As the mesh, and each answer says how long its server thinks that a call would take.
    WithReports,
}

/// The best of three random servers by mean latency x (in flight + 1), and success.
///
/// The load is core's; the formula is written down once more, without what the shipped one does for servers that are new,
/// idle or given up.
pub(super) struct BestOfThree {
    servers: Vec<(Connection, Arc<Vitals>)>,
    rng: Rng,
    clock: Clock,
    terms: Terms,
    reports: Reports,
}

/// What servers said last of how long a call would take there, and when.
#[derive(Clone, Default)]
struct Reports(Arc<Mutex<HashMap<usize, (Instant, Duration)>>>);

impl Reports {
    /// A latency, and what the server said of it, which is forgotten within 50 ms or so and never believed to be less
    /// than half of what was seen.
    fn blend(&self, server: usize, latency_us: f32, now: Instant) -> f32 {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((at, outlook)) = said.get(&server) else {
            return latency_us;
        };
        let fresh = (-now.since(*at).as_secs_f32() / 0.05).exp();
        let said_us = (outlook.as_secs_f32() * 1e6).max(0.5 * latency_us);
        fresh * said_us + (1.0 - fresh) * latency_us
    }

    fn note(&self, answer: Answer, now: Instant) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.insert(answer.server, (now, answer.outlook));
    }
}

impl BestOfThree {
    pub(super) fn client(seat: &Seat, terms: Terms) -> Self {
        let servers = seat.connections().into_iter();
        Self {
            servers: servers.map(|server| (server, Vitals::detached())).collect(),
            rng: seat.rng().clone(),
            clock: seat.clock().clone(),
            terms,
            reports: Reports::default(),
        }
    }

    fn cost(&self, server: usize, load: &Load) -> f32 {
        let latency = load.latency_us().unwrap_or_default();
        let latency = match self.terms {
            Terms::WithReports => self.reports.blend(server, latency, self.clock.now()),
            _ => latency,
        };
        let success = match self.terms {
            Terms::WithoutSuccess => 1.0,
            _ => load.success().max(0.05),
        };
        latency * (load.in_flight() as f32 + 1.0) / (success * success)
    }

    fn pick(&self) -> &(Connection, Arc<Vitals>) {
        let drawn = [(); 3].map(|()| &self.servers[self.rng.below(self.servers.len())]);
        let cost =
            |server: &(Connection, Arc<Vitals>)| self.cost(server.0.server(), server.1.load());
        let costs = drawn.map(cost);
        let best = (1..3).fold(
            0,
            |best, nth| if costs[nth] < costs[best] { nth } else { best },
        );
        drawn[best]
    }
}

impl Service<Call> for BestOfThree {
    type Response = Answer;
    type Error = Failed;
    type Future = Judged;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Call) -> Judged {
        let (server, vitals) = self.pick();
        let attempt = vitals.attempt(&self.clock, Sampling::Mean);
        Judged {
            exchange: server.send(),
            attempt: attempt.expect("nobody judges here"),
            reports: self.reports.clone(),
            clock: self.clock.clone(),
        }
    }
}

/// An attempt that tells the load what came of it.
pub(super) struct Judged {
    exchange: Exchange,
    attempt: Attempt,
    reports: Reports,
    clock: Clock,
}

impl Future for Judged {
    type Output = Result<Answer, Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.exchange).poll(cx));
        if let Ok(answer) = answer {
            self.reports.note(answer, self.clock.now());
        }
        self.attempt.finish(match answer {
            Ok(_) => Outcome::success(),
            Err(_) => Outcome::failure(),
        });
        Poll::Ready(answer)
    }
}
