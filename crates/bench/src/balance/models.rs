//! The mesh's strategy without the mesh, to show what each of its terms is good for.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tower::Service;
use tower_mesh::core::{Attempt, Clock, Finish, Load, Outcome, Rng, Sampling, Vitals};
use tower_mesh_sim::{Answer, Call, Connection, Exchange, Failed, Seat};

/// Whether failures count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Success {
    /// A cost is divided by the square of the success rate.
    Counts,
    /// It is not: the mutant that has to be found.
    Ignored,
}

/// The best of three random servers by mean latency x (in flight + 1), and success.
///
/// The load is core's; the formula is written down once more, without what the shipped one does for servers that are new,
/// idle or given up.
pub(super) struct BestOfThree {
    servers: Vec<(Connection, Arc<Vitals>)>,
    rng: Rng,
    clock: Clock,
    success: Success,
}

impl BestOfThree {
    pub(super) fn client(seat: &Seat, success: Success) -> Self {
        let servers = seat.connections().into_iter();
        Self {
            servers: servers.map(|server| (server, Vitals::detached())).collect(),
            rng: seat.rng().clone(),
            clock: seat.clock().clone(),
            success,
        }
    }

    fn cost(&self, load: &Load) -> f32 {
        let latency = load.latency_us().unwrap_or_default();
        let success = match self.success {
            Success::Counts => load.success().max(0.05),
            Success::Ignored => 1.0,
        };
        latency * (load.in_flight() as f32 + 1.0) / (success * success)
    }

    fn pick(&self) -> &(Connection, Arc<Vitals>) {
        let drawn = [(); 3].map(|()| &self.servers[self.rng.below(self.servers.len())]);
        let costs = drawn.map(|(_, vitals)| self.cost(vitals.load()));
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
        }
    }
}

/// An attempt that tells the load what came of it.
pub(super) struct Judged {
    exchange: Exchange,
    attempt: Attempt,
}

impl Future for Judged {
    type Output = Result<Answer, Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.exchange).poll(cx));
        self.attempt.finish(match answer {
            Ok(_) => Outcome::success(),
            Err(_) => Outcome::failure(),
        });
        Poll::Ready(answer)
    }
}
